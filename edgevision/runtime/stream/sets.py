"""Frames of several cameras, put together by their stamps: no threads, no clock of its own.

A set has at most one frame of each camera, and none of its stamps is further from another than the
window. It is closed when every camera that lives is in it, when a newer one is, or when it has
waited long enough; what is missing then is dealt with as was asked. Sets are closed in the order
of their stamps, so a frame that is no newer than the last closed set has come too late.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

F = TypeVar("F")
Missing = Literal["drop", "without", "stale"]

_POLICIES = ("drop", "without", "stale")
_MAX_MS = 60_000.0
_MAX_OPEN = 8
"""Sets that are put together at once; beyond, the oldest is closed as it is."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How frames of several cameras become sets.

    Attributes:
        cameras: how many there are.
        sync_ms: how far the stamps of one set may be apart.
        wait_ms: how long a set waits for the rest after its first frame came; twice `sync_ms` by
            default. For a camera that is dead none does.
        missing: what becomes of a set that has no frame of some camera: "drop" does not run it;
            "without" runs the others, if the model takes fewer; "stale" runs that camera's last
            frame again, marked, if it ever gave one.
        dead_ms: a camera that has given nothing for so long is dead, until it gives a frame.
    """

    cameras: int
    sync_ms: float = 10.0
    wait_ms: float | None = None
    missing: Missing = "drop"
    dead_ms: float = 1000.0

    def __post_init__(self) -> None:
        if type(self.cameras) is not int or self.cameras < 1:
            raise ValueError(f"cameras: got {self.cameras!r:.40}, expected how many there are")
        for name in ("sync_ms", "wait_ms", "dead_ms"):
            value = getattr(self, name)
            if value is None and name == "wait_ms":
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or not 0 < value <= _MAX_MS:
                raise ValueError(
                    f"{name}: got {value!r:.40}, expected more than 0 and at most {_MAX_MS:.0f}, "
                    "in milliseconds"
                )
        if self.missing not in _POLICIES:
            raise ValueError(f"missing: got {self.missing!r:.40}, expected {', '.join(_POLICIES)}")

    @property
    def wait_ns(self) -> int:
        """How long a set waits."""
        return int((2 * self.sync_ms if self.wait_ms is None else self.wait_ms) * 1e6)


@dataclass(frozen=True, slots=True)
class CameraState:
    """How one camera does.

    Attributes:
        state: "live"; "late", where the last set had no frame of it; or "dead", see `SyncOptions`.
        newest_stamp_ns: of its newest frame, by the cameras' clock; 0 before the first.
        submitted: its frames so far.
        used: that went into a set which was run.
        unused: of sets that were not run, for want of others.
        late: that came after their set, or in the wrong order.
        repeated: that came twice.
        missed: sets that had no frame of it.
    """

    state: Literal["live", "late", "dead"] = "live"
    newest_stamp_ns: int = 0
    submitted: int = 0
    used: int = 0
    unused: int = 0
    late: int = 0
    repeated: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class CameraSet:
    """Which frames went in together; what `Ticket.meta` is in a pipeline of cameras.

    Attributes:
        cameras: whose frame it is, for each result in turn.
        stamps_ns: of each.
        metas: what came with each.
        stale: cameras whose frame is an old one.
        missing: cameras of which there is no frame.
    """

    cameras: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    metas: tuple[object, ...]
    stale: frozenset[int]
    missing: frozenset[int]

    def by_camera(self, results: Sequence[Any]) -> dict[int, Any]:
        """Return each result by its camera."""
        return dict(zip(self.cameras, results, strict=True))


@dataclass(frozen=True, slots=True)
class ClosedSet(Generic[F]):
    """A set that is to be run.

    Attributes:
        frames: in the order of `described.cameras`.
        described: what they are.
        stamp_ns: of the oldest that is not stale.
    """

    frames: tuple[F, ...]
    described: CameraSet
    stamp_ns: int


@dataclass(slots=True)
class _Frame(Generic[F]):
    stamp_ns: int
    frame: F
    meta: object


@dataclass(slots=True)
class _Open(Generic[F]):
    low_ns: int
    high_ns: int
    due_ns: int
    frames: dict[int, _Frame[F]] = field(default_factory=dict)


class Sets(Generic[F]):
    """Frames on their way into sets; who calls gives the time.

    Attributes:
        closed: sets that are to be run, oldest first; who runs one takes it out.
        dropped: sets that were not run, for want of frames.
    """

    def __init__(self, options: SyncOptions, *, least: int, now_ns: int) -> None:
        """Begin at `now_ns`; a set of fewer than `least` frames is never run."""
        self.closed: deque[ClosedSet[F]] = deque()
        self.dropped = 0
        self._options, self._least = options, least
        self._sync_ns, self._wait_ns = int(options.sync_ms * 1e6), options.wait_ns
        self._dead_ns = int(options.dead_ms * 1e6)
        self._states = [CameraState() for _ in range(options.cameras)]
        self._heard_ns = [now_ns] * options.cameras
        self._last: list[_Frame[F] | None] = [None] * options.cameras
        self._open: list[_Open[F]] = []
        self._until_ns: int | None = None

    def add(self, camera: int, stamp_ns: int, frame: F, meta: object, now_ns: int) -> None:
        """Take a frame; what it completes is in `closed` afterwards."""
        self._heard_ns[camera] = now_ns
        state = self._states[camera]
        newest = max(state.newest_stamp_ns, stamp_ns)
        self._count(camera, submitted=1, newest_stamp_ns=newest - state.newest_stamp_ns)
        if any(
            camera in one.frames and one.frames[camera].stamp_ns == stamp_ns for one in self._open
        ):
            self._count(camera, repeated=1)
        elif self._until_ns is not None and stamp_ns <= self._until_ns:
            last = self._last[camera]
            is_repeated = last is not None and last.stamp_ns == stamp_ns
            self._count(camera, repeated=is_repeated, late=not is_repeated)
        elif (found := self._place(camera, stamp_ns, now_ns)) is None:
            self._count(camera, late=1)
        else:
            found.frames[camera] = _Frame(stamp_ns, frame, meta)
            found.low_ns = min(found.low_ns, stamp_ns)
            found.high_ns = max(found.high_ns, stamp_ns)
        self.expire(now_ns)

    def expire(self, now_ns: int) -> int | None:
        """Close what has waited long enough, and return when the next will have; None if none."""
        last = -1
        for place, one in enumerate(self._open):
            if one.due_ns <= now_ns or self._is_complete(one, now_ns):
                last = place
        last = max(last, len(self._open) - _MAX_OPEN - 1)
        for _ in range(last + 1):
            self._close(self._open.pop(0))
        return min((one.due_ns for one in self._open), default=None)

    def cameras(self, now_ns: int) -> tuple[CameraState, ...]:
        """Return how each camera does."""
        return tuple(
            replace(state, state="dead") if self._is_dead(camera, now_ns) else state
            for camera, state in enumerate(self._states)
        )

    @property
    def waiting(self) -> int:
        """How many frames are in sets that are not closed yet."""
        return sum(len(one.frames) for one in self._open)

    def _place(self, camera: int, stamp_ns: int, now_ns: int) -> _Open[F] | None:
        """Return the set that a frame belongs to; None where it would not be in its turn."""
        before = [one.frames[camera].stamp_ns for one in self._open if camera in one.frames]
        for place, one in enumerate(self._open):
            apart = max(one.high_ns, stamp_ns) - min(one.low_ns, stamp_ns)
            if camera not in one.frames and apart <= self._sync_ns:
                if self._is_in_turn(camera, stamp_ns, place):
                    return one
                return None
        place = sum(one.low_ns <= stamp_ns for one in self._open)
        if before and not self._is_in_turn(camera, stamp_ns, place):
            return None
        opened: _Open[F] = _Open(stamp_ns, stamp_ns, now_ns + self._wait_ns)
        self._open.insert(place, opened)
        return opened

    def _is_in_turn(self, camera: int, stamp_ns: int, place: int) -> bool:
        """Whether a camera's stamps still rise from set to set with this one at `place`."""
        stamps = [
            one.frames[camera].stamp_ns if camera in one.frames else None for one in self._open
        ]
        earlier = [stamp for stamp in stamps[:place] if stamp is not None]
        later = [stamp for stamp in stamps[place:] if stamp is not None]
        return max(earlier, default=stamp_ns - 1) < stamp_ns < min(later, default=stamp_ns + 1)

    def _is_complete(self, one: _Open[F], now_ns: int) -> bool:
        return all(
            camera in one.frames or self._is_dead(camera, now_ns)
            for camera in range(self._options.cameras)
        )

    def _is_dead(self, camera: int, now_ns: int) -> bool:
        return now_ns - self._heard_ns[camera] > self._dead_ns

    def _close(self, one: _Open[F]) -> None:
        self._until_ns = max(one.high_ns, self._until_ns or one.high_ns)
        count = range(self._options.cameras)
        missing = [camera for camera in count if camera not in one.frames]
        taken: dict[int, _Frame[F]] = dict(one.frames)
        stale = set()
        if self._options.missing == "stale":
            for camera in missing:
                if (last := self._last[camera]) is not None:
                    taken[camera] = last
                    stale.add(camera)
        is_run = len(taken) == len(count) if self._options.missing != "without" else True
        is_run = is_run and len(taken) >= self._least
        for camera in count:
            if camera in one.frames:
                self._last[camera] = one.frames[camera]
                self._count(camera, used=is_run, unused=not is_run)
            else:
                self._count(camera, missed=1)
            state: Literal["live", "late"] = "live" if camera in one.frames else "late"
            self._states[camera] = replace(self._states[camera], state=state)
        if not is_run:
            self.dropped += 1
            return
        order = sorted(taken)
        described = CameraSet(
            cameras=tuple(order),
            stamps_ns=tuple(taken[camera].stamp_ns for camera in order),
            metas=tuple(taken[camera].meta for camera in order),
            stale=frozenset(stale),
            missing=frozenset(set(missing) - stale),
        )
        frames = tuple(taken[camera].frame for camera in order)
        self.closed.append(ClosedSet(frames, described, one.low_ns))

    def _count(self, camera: int, **more: int) -> None:
        state = self._states[camera]
        changed: dict[str, Any] = {name: getattr(state, name) + n for name, n in more.items()}
        self._states[camera] = replace(state, **changed)
