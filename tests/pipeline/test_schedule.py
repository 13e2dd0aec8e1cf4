"""The schedule's decisions, step by step and without threads."""

from __future__ import annotations

from typing import Any

import pytest

from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.stream.schedule import Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket

MS = 1_000_000


class Awake:
    lifetime = Lifetime("the test")

    def check_progress(self) -> None:
        pass


def entry(stamp_ms: int = 0, deadline_ms: int | None = None) -> Entry[None]:
    deadline_ns = None if deadline_ms is None else (stamp_ms + deadline_ms) * MS
    made: Entry[None] = Entry(stamp_ms * MS)
    made.ticket = Ticket(stamp_ms * MS, deadline_ns, Awake())
    return made


def started(frames: Schedule[None], now_ns: int) -> Entry[None] | None:
    return frames.start(now_ns, Entry())


def schedule(**options: Any) -> Schedule[None]:
    chosen = StreamOptions(**options)
    return Schedule(chosen, depth=chosen.depth)


def test_latest_keeps_one_running_and_the_newest_waiting() -> None:
    frames = schedule(policy="latest", slots=3)
    entries = [entry(i) for i in range(4)]
    frames.enter(entries[0])
    assert started(frames, 1) is entries[0]
    frames.enter(entries[1])
    assert started(frames, 1) is None
    frames.enter(entries[2])
    frames.enter(entries[3])
    assert [made.ended for made in entries] == [(), (), (entries[1],), (entries[2],)]
    assert frames.finish(2, 3)
    assert started(frames, 4) is entries[3]
    counters = frames.counters(5)
    assert (counters.submitted, counters.delivered, counters.dropped) == (4, 1, 2)
    assert (counters.waiting, counters.running) == (0, 1)


@pytest.mark.parametrize(
    ("policy", "slots", "depth"),
    [("latest", 3, 1), ("drop_oldest", 3, 2), ("block", 3, 3), ("block", 1, 1)],
)
def test_each_policy_fills_the_device_to_its_depth(policy: str, slots: int, depth: int) -> None:
    frames = schedule(policy=policy, slots=slots)
    running = 0
    for _ in range(slots):
        frames.enter(entry())
        while started(frames, 0) is not None:
            running += 1
    assert running == depth


def test_the_oldest_waiting_frame_goes_first() -> None:
    frames = schedule(policy="drop_oldest", slots=2)
    first, second, third = entry(), entry(), entry()
    for each in (first, second, third):
        frames.enter(each)
    by: Entry[None] = Entry()
    assert frames.drop_oldest(by) is first
    assert started(frames, 0) is second
    assert frames.drop_oldest(by) is third
    assert frames.drop_oldest(by) is None
    assert by.ended == (first, third)


def test_a_hopeless_frame_is_not_run() -> None:
    frames = schedule(policy="block", slots=2, deadline_ms=20.0, on_late="drop")
    frames.enter(entry(0, 20))
    assert started(frames, 0) is not None
    assert frames.finish(10 * MS, 11 * MS)
    # The fastest run so far took 10 ms: at 11 ms the next is still in time, at 12 ms it is not.
    in_time, too_late = entry(1, 20), entry(1, 20)
    frames.enter(in_time)
    frames.enter(too_late)
    assert started(frames, 11 * MS) is in_time
    assert frames.finish(21 * MS, 21 * MS)
    by: Entry[None] = Entry()
    assert frames.start(12 * MS, by) is None
    assert by.ended == (too_late,)
    counters = frames.counters(12 * MS)
    assert (counters.late, counters.dropped) == (1, 1)


def test_a_slow_frame_does_not_end_all() -> None:
    """Of a net that takes a millisecond, and once took a hundred, with a deadline of fifty."""
    frames = schedule(policy="block", slots=2, deadline_ms=50.0, on_late="drop")
    frames.enter(entry(0, 1000))
    assert started(frames, 0) is not None
    frames.finish(100 * MS, 100 * MS)
    tried = 0
    for number in range(20):
        now_ms = 200 + 10 * number
        frames.enter(entry(now_ms, 50))
        if started(frames, now_ms * MS) is not None:
            tried += 1
            frames.finish((now_ms + 1) * MS, (now_ms + 1) * MS)
    assert tried >= 14
    assert frames.counters(0).delivered == 1 + tried


def test_what_the_warm_up_took_is_what_a_frame_is_thought_to_take() -> None:
    frames = schedule(policy="block", slots=2, deadline_ms=50.0, on_late="drop")
    frames.expect(60 * MS)
    by: Entry[None] = Entry()
    frames.enter(entry(0, 50))
    assert frames.start(0, by) is None
    assert len(by.ended) == 1


def test_a_frame_that_was_late_already_says_nothing_of_the_device() -> None:
    frames = schedule(policy="block", slots=2, deadline_ms=50.0, on_late="drop")
    frames.expect(40 * MS)
    for _ in range(50):
        frames.enter(entry(0, 50))
        assert started(frames, 51 * MS) is None
    frames.enter(entry(0, 50))
    assert started(frames, 11 * MS) is None, "it is still thought to take 40 ms"


@pytest.mark.parametrize(("on_late", "delivered"), [("deliver", True), ("drop", False)])
def test_an_answer_after_its_deadline_is_late(on_late: str, delivered: bool) -> None:
    frames = schedule(deadline_ms=20.0, on_late=on_late)
    late = entry(1, 19)
    frames.enter(late)
    started(frames, 1 * MS)
    assert frames.finish(20 * MS, 20 * MS + 1) is delivered
    counters = frames.counters(31 * MS)
    assert (counters.late, counters.delivered, counters.dropped) == (1, delivered, not delivered)
    assert counters.newest_age_ms == (30.0 if delivered else 0.0)


def test_without_a_deadline_nothing_is_late() -> None:
    frames = schedule(on_late="drop")
    frames.enter(entry())
    assert started(frames, 10**15) is not None
    assert frames.finish(10**16, 10**17)
    assert frames.counters(0).late == 0


def test_the_age_is_that_of_the_newest_answered_frame() -> None:
    frames = schedule(policy="block")
    for stamp_ms in (5, 3):
        frames.enter(entry(stamp_ms))
        started(frames, 6 * MS)
        frames.finish(7 * MS, 8 * MS)
    assert frames.counters(15 * MS).newest_age_ms == 10


def test_what_is_given_up_comes_out_in_order() -> None:
    frames = schedule(policy="drop_oldest", slots=3)
    entries = [entry() for _ in range(4)]
    for each in entries:
        frames.enter(each)
    started(frames, 0)
    started(frames, 0)
    by: Entry[None] = Entry()
    frames.abandon(by)
    assert list(by.ended) == entries
    assert frames.is_empty
    assert frames.counters(0).lost == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "newest"}, "got 'newest', expected latest, block or drop_oldest"),
        ({"slots": 1}, "policy 'latest' takes 2 to 64"),
        ({"slots": 0, "policy": "block"}, "policy 'block' takes 1 to 64"),
        ({"slots": 65}, "takes 2 to 64"),
        ({"on_late": "cry"}, "got 'cry', expected deliver or drop"),
        ({"deadline_ms": 0.0}, "deadline_ms: got 0"),
        ({"deadline_ms": float("nan")}, "deadline_ms: got nan"),
        ({"deadline_ms": float("inf")}, "deadline_ms: got inf.*at most 86400000"),
        ({"deadline_ms": 1e9}, "at most 86400000"),
        ({"deadline_ms": "50"}, "deadline_ms: got '50'"),
        ({"deadline_ms": True}, "deadline_ms: got True"),
        ({"stall_ms": -1.0}, "stall_ms: got -1"),
        ({"stall_ms": float("inf")}, "stall_ms: got inf"),
        ({"stall_ms": float("nan")}, "stall_ms: got nan"),
        ({"stall_ms": None}, "stall_ms: got None"),
        ({"slots": 3.0}, "slots: got 3.0"),
        ({"slots": "3"}, "slots: got '3'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamOptions(**options)
