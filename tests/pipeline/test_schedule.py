"""The schedule's decisions, step by step and without threads."""

from __future__ import annotations

from typing import Any, cast

import pytest

from edgevision.runtime.stream.schedule import Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket

MS = 1_000_000


class Awake:
    def check_progress(self) -> None:
        pass


def entry(stamp_ms: int = 0, deadline_ms: int | None = None) -> Entry[None]:
    deadline_ns = None if deadline_ms is None else (stamp_ms + deadline_ms) * MS
    ticket: Ticket[None] = Ticket(stamp_ms * MS, deadline_ns, Awake())
    return Entry(cast(Any, None), ticket, stamp_ms * MS, stamp_ms * MS)


def is_started(frames: Schedule[None], now_ns: int) -> bool:
    started = frames.start(now_ns)
    assert started is not None
    return started[1]


def schedule(**options: Any) -> Schedule[None]:
    chosen = StreamOptions(**options)
    return Schedule(chosen, depth=chosen.depth)


def test_latest_keeps_one_running_and_the_newest_waiting() -> None:
    frames = schedule(policy="latest", slots=3)
    entries = [entry(i) for i in range(4)]
    assert frames.enter(entries[0]) is None
    assert frames.start(1) == (entries[0], True)
    assert frames.enter(entries[1]) is None
    assert frames.start(1) is None
    assert frames.enter(entries[2]) is entries[1]
    assert frames.enter(entries[3]) is entries[2]
    assert frames.finish(2, 3)
    assert frames.start(4) == (entries[3], True)
    counters = frames.counters(5)
    assert (counters.submitted, counters.delivered, counters.dropped) == (4, 1, 2)
    assert (counters.waiting, counters.running) == (0, 1)


@pytest.mark.parametrize(
    ("policy", "slots", "depth"),
    [("latest", 3, 1), ("drop_oldest", 3, 2), ("block", 3, 3), ("block", 1, 1)],
)
def test_each_policy_fills_the_device_to_its_depth(policy: str, slots: int, depth: int) -> None:
    frames = schedule(policy=policy, slots=slots)
    started = 0
    for _ in range(slots):
        frames.enter(entry())
        while frames.start(0) is not None:
            started += 1
    assert started == depth


def test_the_oldest_waiting_frame_goes_first() -> None:
    frames = schedule(policy="drop_oldest", slots=2)
    first, second, third = entry(), entry(), entry()
    for each in (first, second, third):
        frames.enter(each)
    assert frames.drop_oldest() is first
    assert frames.start(0) == (second, True)
    assert frames.drop_oldest() is third
    assert frames.drop_oldest() is None


def test_a_hopeless_frame_is_not_run() -> None:
    frames = schedule(policy="block", slots=2, deadline_ms=20.0, on_late="drop")
    frames.enter(entry(0, 20))
    assert is_started(frames, 0)
    assert frames.finish(10 * MS, 11 * MS)
    # The fastest run so far took 10 ms: at 11 ms the next is still in time, at 12 ms it is not.
    in_time, too_late = entry(1, 20), entry(1, 20)
    frames.enter(in_time)
    frames.enter(too_late)
    assert frames.start(11 * MS) == (in_time, True)
    assert frames.start(12 * MS) == (too_late, False)
    counters = frames.counters(12 * MS)
    assert (counters.late, counters.dropped) == (1, 1)


@pytest.mark.parametrize(("on_late", "delivered"), [("deliver", True), ("drop", False)])
def test_an_answer_after_its_deadline_is_late(on_late: str, delivered: bool) -> None:
    frames = schedule(deadline_ms=20.0, on_late=on_late)
    late = entry(0, 20)
    frames.enter(late)
    frames.start(0)
    assert frames.finish(20 * MS, 20 * MS + 1) is delivered
    counters = frames.counters(30 * MS)
    assert (counters.late, counters.delivered, counters.dropped) == (1, delivered, not delivered)
    assert counters.newest_age_ms == 0 if not delivered else counters.newest_age_ms >= 0


def test_without_a_deadline_nothing_is_late() -> None:
    frames = schedule(on_late="drop")
    frames.enter(entry())
    assert is_started(frames, 10**15)
    assert frames.finish(10**16, 10**17)
    assert frames.counters(0).late == 0


def test_the_age_is_that_of_the_newest_answered_frame() -> None:
    frames = schedule(policy="block")
    for stamp_ms in (5, 3):
        frames.enter(entry(stamp_ms))
        frames.start(6 * MS)
        frames.finish(7 * MS, 8 * MS)
    assert frames.counters(15 * MS).newest_age_ms == 10


def test_what_is_given_up_comes_out_in_order() -> None:
    frames = schedule(policy="drop_oldest", slots=3)
    entries = [entry() for _ in range(4)]
    for each in entries:
        frames.enter(each)
    frames.start(0)
    frames.start(0)
    assert frames.abandon() == entries
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
        ({"stall_ms": -1.0}, "stall_ms: got -1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamOptions(**options)
