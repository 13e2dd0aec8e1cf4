"""Frames of several cameras become sets: none is lost, torn or mixed, whoever is late or dead.

EDGEVISION_TEST_SETS=5000 are as many schedules as the project promises; CI does fewer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevision.runtime.stream import sets
from edgevision.runtime.stream.sets import CameraSet, ClosedSet, Sets, SyncOptions

SCHEDULES = int(os.environ.get("EDGEVISION_TEST_SETS", "150"))
MS = 1_000_000
PERIOD, SYNC, WAIT, DEAD = 33 * MS, 10 * MS, 20 * MS, 100 * MS
Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass
class Faults:
    """What goes wrong, beside jitter of stamps and ways: each by camera and tick."""

    late: dict[tuple[int, int], int] = field(default_factory=dict)  # by so many ms
    gone: set[tuple[int, int]] = field(default_factory=set)
    twice: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Schedule:
    cameras: int
    ticks: int
    missing: str
    least: int
    faults: Faults
    seed: int


@st.composite
def schedules(draw: Any) -> Schedule:
    cameras, ticks = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    places = st.tuples(st.integers(0, cameras - 1), st.integers(0, ticks - 1))
    gone = set(draw(st.lists(places, max_size=6)))
    for camera, tick in draw(st.lists(places, max_size=2)):  # dead from then on, or for a while
        gone |= {(camera, k) for k in range(tick, tick + draw(st.integers(1, 12)))}
    return Schedule(
        cameras,
        ticks,
        draw(st.sampled_from(["drop", "without", "stale"])),
        draw(st.integers(1, cameras)),
        Faults(
            draw(st.dictionaries(places, st.integers(1, 120), max_size=6)),
            gone,
            set(draw(st.lists(places, max_size=4))),
        ),
        draw(st.integers(0, 1 << 16)),
    )


def arrivals(schedule: Schedule) -> list[tuple[int, int, int, int]]:
    """Return when which camera's frame of which tick comes, and its stamp, in order of coming."""
    rng, faults = random.Random(schedule.seed), schedule.faults
    found = []
    for tick in range(schedule.ticks):
        for camera in range(schedule.cameras):
            stamp = (tick + 1) * PERIOD + rng.randint(0, SYNC)
            at = stamp + rng.randint(0, 3 * MS) + faults.late.get((camera, tick), 0) * MS
            if (camera, tick) in faults.gone:
                continue
            found.append((at, camera, tick, stamp))
            if (camera, tick) in faults.twice:
                found.append((at + rng.randint(0, 40 * MS), camera, tick, stamp))
    return sorted(found)


def run(schedule: Schedule) -> tuple[list[tuple[int, ClosedSet[Any]]], Sets[Any], int]:
    """Drive the sets, and return each that is to be run with the time of that."""
    rng = random.Random(schedule.seed + 1)
    options = SyncOptions(
        schedule.cameras,
        SYNC / MS,
        WAIT / MS,
        schedule.missing,
        DEAD / MS,  # type: ignore[arg-type]
    )
    least = schedule.least if schedule.missing == "without" else schedule.cameras
    together: Sets[Any] = Sets(options, least=least, now_ns=0)
    closed, now, due = [], 0, None

    def take() -> None:
        while together.closed:
            closed.append((now, together.closed.popleft()))

    for at, camera, tick, stamp in arrivals(schedule):
        while due is not None and due <= at and rng.random() < 0.9:  # the thread may be slow
            now = max(now, due)
            due = together.expire(now)
            take()
        now = at
        together.add(camera, stamp, (camera, tick, stamp), tick, now)
        take()
        due = together.expire(now)
        take()
    while due is not None:
        now = max(now, due)
        due = together.expire(now)
        take()
    return closed, together, now


def check(schedule: Schedule) -> None:
    """Hold what came out against what went in."""
    closed, together, now = run(schedule)
    came = arrivals(schedule)
    fresh: list[tuple[int, int, int]] = []
    newest = dict.fromkeys(range(schedule.cameras), 0)
    begun = 0
    for _, one in closed:
        described = one.described
        assert list(described.cameras) == sorted(set(described.cameras))
        assert set(described.cameras) | described.missing == set(range(schedule.cameras))
        assert not set(described.cameras) & described.missing
        own = []
        for camera, stamp, meta, frame in zip(
            described.cameras, described.stamps_ns, described.metas, one.frames, strict=True
        ):
            assert frame == (camera, meta, stamp), "torn"
            if camera in described.stale:
                assert schedule.missing == "stale"
                assert stamp < one.stamp_ns
            else:
                own.append(frame)
                assert stamp > newest[camera], "out of order, or twice"
                newest[camera] = stamp
        stamps = [stamp for _, _, stamp in own]
        assert max(stamps) - min(stamps) <= SYNC, "mixed"
        assert len({tick for _, tick, _ in own}) == 1, "mixed"
        assert one.stamp_ns == min(stamps)
        assert one.stamp_ns > begun, "sets out of order"
        begun = one.stamp_ns
        if schedule.missing == "without":
            assert not described.stale
            assert len(own) >= schedule.least
        else:
            assert not described.missing
        assert schedule.missing != "drop" or len(own) == schedule.cameras
        fresh += own
    assert len(fresh) == len(set(fresh)), "a frame in two sets"
    assert set(fresh) <= {(camera, tick, stamp) for _, camera, tick, stamp in came}
    check_counts(schedule, together, fresh, now)
    check_none_is_lost(schedule, closed)


def check_counts(
    schedule: Schedule, together: Sets[Any], fresh: list[tuple[int, int, int]], now: int
) -> None:
    came = arrivals(schedule)
    assert together.waiting == 0
    for camera, state in enumerate(together.cameras(now)):
        mine = [(at, stamp) for at, c, _, stamp in came if c == camera]
        assert state.submitted == len(mine)
        assert state.used == sum(c == camera for c, _, _ in fresh)
        counted = state.used + state.unused + state.late + state.repeated
        assert counted == state.submitted, "a frame was lost"
        assert state.newest_stamp_ns == max((stamp for _, stamp in mine), default=0)
        heard = max((at for at, _ in mine), default=0)
        assert (state.state == "dead") == (now - heard > DEAD)


def check_none_is_lost(schedule: Schedule, closed: list[tuple[int, ClosedSet[Any]]]) -> None:
    """A tick whose frames all came in time, before any newer set was closed, is run whole."""
    came = arrivals(schedule)
    firsts: dict[int, dict[int, int]] = {}
    for at, camera, tick, _ in came:
        firsts.setdefault(tick, {}).setdefault(camera, at)
    whole = {
        one.described.metas[0]
        for _, one in closed
        if not one.described.stale and len(one.described.cameras) == schedule.cameras
    }
    for tick, by_camera in firsts.items():
        if len(by_camera) != schedule.cameras:
            continue
        begin, end = min(by_camera.values()), max(by_camera.values())
        later = [at for at, _, other, _ in came if other > tick]
        heard_ns = [
            max((at for at, c, _, _ in came if c == camera and at < here), default=0)
            for camera, here in by_camera.items()
        ]
        is_nobody_dead = all(end - heard <= DEAD for heard in heard_ns)
        if end - begin < WAIT and end < min(later, default=end + 1) and is_nobody_dead:
            assert tick in whole, f"tick {tick} was lost"


@settings(max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow])
@given(schedules())
def test_no_set_is_lost_torn_or_mixed(schedule: Schedule) -> None:
    check(schedule)


def joins_whatever_is_open(patch: pytest.MonkeyPatch) -> None:
    """Stamps are not looked at where a set waits for that camera."""
    place = Sets._place

    def any_(self: Any, camera: int, stamp_ns: int, now_ns: int) -> Any:
        free = [one for one in self._open if camera not in one.frames]
        return free[0] if free else place(self, camera, stamp_ns, now_ns)

    patch.setattr(Sets, "_place", any_)


def gives_frames_in_the_order_in_which_they_came(patch: pytest.MonkeyPatch) -> None:
    real = sets.ClosedSet

    def unsorted(frames: tuple[Any, ...], described: CameraSet, stamp_ns: int) -> Any:
        return real(tuple(sorted(frames, key=lambda frame: frame[2])), described, stamp_ns)

    patch.setattr(sets, "ClosedSet", unsorted)


def closes_a_whole_set_before_older_ones(patch: pytest.MonkeyPatch) -> None:
    expire = Sets.expire

    def hasty(self: Any, now_ns: int) -> int | None:
        for one in [one for one in self._open if self._is_complete(one, now_ns)]:
            self._open.remove(one)
            self._close(one)
        return expire(self, now_ns)

    patch.setattr(Sets, "expire", hasty)


def forgets_a_set_that_waited_in_vain(patch: pytest.MonkeyPatch) -> None:
    close = Sets._close

    def forgets(self: Any, one: Any) -> None:
        if len(one.frames) == self._options.cameras or one.high_ns % 2:
            close(self, one)

    patch.setattr(Sets, "_close", forgets)


def takes_a_repeated_frame_for_a_new_one(patch: pytest.MonkeyPatch) -> None:
    add = Sets.add

    def again(self: Any, camera: int, stamp_ns: int, *rest: Any) -> None:
        until, self._until_ns = self._until_ns, None
        add(self, camera, stamp_ns, *rest)
        self._until_ns = self._until_ns or until

    patch.setattr(Sets, "add", again)


@pytest.mark.parametrize(
    "plant",
    [
        joins_whatever_is_open,
        gives_frames_in_the_order_in_which_they_came,
        closes_a_whole_set_before_older_ones,
        forgets_a_set_that_waited_in_vain,
        takes_a_repeated_frame_for_a_new_one,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(300):
        try:
            check(drawn(seed))
        except AssertionError:
            return
    pytest.fail("300 schedules did not find it")


def test_without_a_plant_nothing_is_found() -> None:
    for seed in range(300):
        check(drawn(seed))


def drawn(seed: int) -> Schedule:
    """Return a schedule with many faults."""
    rng = random.Random(seed)
    cameras, ticks = rng.randint(2, 6), rng.randint(3, 12)

    def places(count: int) -> list[tuple[int, int]]:
        return [(rng.randrange(cameras), rng.randrange(ticks)) for _ in range(count)]

    late = {place: rng.randint(1, 120) for place in places(6)}
    faults = Faults(late, set(places(4)), set(places(4)))
    missing = rng.choice(["drop", "without", "stale"])
    return Schedule(cameras, ticks, missing, rng.randint(1, cameras), faults, seed)


def test_options_that_make_no_sense() -> None:
    for wrong in (
        {"cameras": 0},
        {"cameras": True},
        {"cameras": 2, "sync_ms": 0},
        {"cameras": 2, "wait_ms": float("nan")},
        {"cameras": 2, "dead_ms": 1e9},
        {"cameras": 2, "missing": "guess"},
    ):
        with pytest.raises(ValueError, match=r"(cameras|sync_ms|wait_ms|dead_ms|missing): got"):
            SyncOptions(**wrong)  # type: ignore[arg-type]
