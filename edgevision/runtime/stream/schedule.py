"""Which frame runs next, which is dropped, and what became of all of them: no threads, no clock.

The pipeline asks under its lock and gives the time; so every policy can be tested step by step.
"""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from edgevision.runtime.slots.slots import Hold
from edgevision.runtime.stream.ticket import Ticket

T = TypeVar("T")
Policy = Literal["latest", "block", "drop_oldest"]

REPLACED = "a newer frame took its place"
EXPIRED = "its deadline could no longer be met"
CLOSED = "the pipeline was closed"
LOST = "the engine failed"
MOST_MS = 86_400_000.0
"""Of a deadline or stall: a day. Beyond it somebody has taken another unit."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a pipeline treats frames that come faster than they can be run.

    Attributes:
        slots: frames that the pipeline holds at most, each with its own buffers.
        policy: what happens to a frame when they are all in use. "latest" keeps one frame on the
            device and one waiting, which a newer one replaces: the answer is as fresh as can be.
            "drop_oldest" fills the device and drops the frame that has waited longest. "block" lets
            `submit` wait and drops nothing.
        deadline_ms: after its stamp an answer is late; a day at most, None for no deadline.
        on_late: "deliver" gives late answers, marked; "drop" does not run a frame that cannot make
            it any more, and gives no late answers. How long a run takes is known from the warm-up
            and the runs since; while frames are dropped it is thought ever shorter, so that now
            and then one is tried.
        stall_ms: a device that has not answered for so long, counted from its last answer, is
            reported as stuck; a day at most.
        trace: a file to be made, with the stages of every frame for ui.perfetto.dev or
            chrome://tracing; about 500 bytes a frame. None writes none.
    """

    slots: int = 3
    policy: Policy = "latest"
    deadline_ms: float | None = None
    on_late: Literal["deliver", "drop"] = "deliver"
    stall_ms: float = 10_000.0
    trace: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.policy not in ("latest", "block", "drop_oldest"):
            raise ValueError(f"policy: got '{self.policy}', expected latest, block or drop_oldest")
        if self.on_late not in ("deliver", "drop"):
            raise ValueError(f"on_late: got '{self.on_late}', expected deliver or drop")
        least = 1 if self.policy == "block" else 2
        if not isinstance(self.slots, int) or not least <= self.slots <= 64:
            raise ValueError(
                f"slots: got {self.slots!r}, policy '{self.policy}' takes {least} to 64: one frame "
                "runs while another waits"
            )
        if self.deadline_ms is not None:
            _check_ms("deadline_ms", self.deadline_ms)
        _check_ms("stall_ms", self.stall_ms)

    @property
    def depth(self) -> int:
        """How many frames may be on the device at once."""
        return {"latest": 1, "drop_oldest": self.slots - 1, "block": self.slots}[self.policy]


def _check_ms(name: str, value: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= MOST_MS:
        raise ValueError(
            f"{name}: got {value!r}, expected more than 0 and at most {MOST_MS:.0f} (a day), in "
            "milliseconds"
        )


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the frames so far.

    Attributes:
        submitted: taken by `submit`.
        delivered: answered.
        dropped: dropped by the policy, by a deadline with `on_late="drop"`, or by a `close` that
            does not drain.
        late: answered or dropped after their deadline, or because of it.
        lost: in the pipeline when the engine failed.
        waiting: in a slot, not on the device yet.
        running: on the device.
        newest_age_ms: how old the newest answer's frame is now; 0 before the first.
    """

    submitted: int
    delivered: int
    dropped: int
    late: int
    lost: int
    waiting: int
    running: int
    newest_age_ms: float


class Entry(Hold, Generic[T]):
    """A frame on its way, and the call that brings it.

    Attributes:
        ticket: where its answer goes.
        start_ns: when its copy began.
        filled_ns: when it lay in its slot.
        launched_ns: when its launch began.
        is_entered: whether it is in the schedule, and its slot the schedule's.
        is_queued: whether the device has all of it.
        by: the call that launches it, if that is not its own.
        launches: what this call launches, if that is not itself.
        ended: frames that this call took out and that nobody has been told of.
        is_done: whether this call has entered its frame and told of those that it took out.
        is_over: whether this call has ended; what it left behind is the worker's then.
        is_cut: whether it begins a stream of state, see `CarriedState`.
        fate: why there will be no answer; empty while there may be one.
    """

    ticket: Ticket[T]
    filled_ns = 0
    launched_ns = 0
    is_entered = False
    is_queued = False
    by: Entry[T] | None = None
    launches: Entry[T] | None = None
    ended: tuple[Entry[T], ...] = ()
    is_done = False
    is_over = False
    is_cut = False
    fate = ""

    def __init__(self, start_ns: int = 0) -> None:
        self.start_ns = start_ns

    @property
    def is_launching(self) -> bool:
        """Whether a call that goes on is about to launch it, or in the middle of that."""
        by = self.by or self
        return self.launched_ns != 0 and not self.is_queued and not by.is_over


class Schedule(Generic[T]):
    """The frames inside a pipeline, oldest first; at most `depth` of them run at once.

    Who calls may be interrupted anywhere, so a frame goes from one place to the next in lines
    without a call or a jump back; see `slots`. What is taken out without an answer goes to the
    `ended` of the call that did it.

    Attributes:
        is_next_cut: whether the next frame that enters begins a stream of state.
    """

    def __init__(self, options: StreamOptions, *, depth: int) -> None:
        self.waiting: deque[Entry[T]] = deque()
        self.running: deque[Entry[T]] = deque()
        self.depth = depth
        self._replaces = options.policy == "latest"
        self._drops_late = options.on_late == "drop"
        self._submitted = self._delivered = self._dropped = self._late = self._lost = 0
        self._newest_stamp_ns = 0
        self._run_ns = 0
        self.is_next_cut = False
        # A frame that was dropped leaves its cut to the next that runs.
        self._is_cut = False

    @property
    def is_empty(self) -> bool:
        """Whether no frame is inside."""
        return not self.waiting and not self.running

    def inside(self) -> list[Entry[T]]:
        """Return the frames inside, oldest first."""
        return [*self.running, *self.waiting]

    def expect(self, run_ns: int) -> None:
        """Take the time of a run that was measured before the first frame."""
        self._run_ns = run_ns

    def enter(self, entry: Entry[T]) -> None:
        """Number a frame and let it wait; one that it replaces has ended."""
        if self._replaces:
            self.drop_oldest(entry)
        entry.ticket.sequence = self._submitted
        self._submitted += 1
        if self.is_next_cut:
            entry.is_cut = True
            self.is_next_cut = False
        entry.thread = 0
        entry.is_entered = True
        self.waiting += (entry,)

    def drop_oldest(self, by: Entry[T], why: str = REPLACED) -> Entry[T] | None:
        """Take out the frame that has waited longest; None if none waits."""
        if not self.waiting:
            return None
        entry = self.waiting[0]
        self._is_cut |= entry.is_cut
        del self.waiting[0]
        self._dropped += 1
        entry.fate = why
        by.ended += (entry,)
        return entry

    def start(self, now_ns: int, by: Entry[T]) -> Entry[T] | None:
        """Let the next waiting frame run, and return it; `by` launches it.

        Late ones are dropped on the way if that is the policy: those that end too late even if
        they run as fast as any has. None if no frame waits, or the device is full.
        """
        while len(self.running) < self.depth and self.waiting:
            entry = self.waiting[0]
            deadline_ns = entry.ticket.deadline_ns
            if self._drops_late and deadline_ns is not None and now_ns + self._run_ns > deadline_ns:
                self._is_cut |= entry.is_cut
                del self.waiting[0]
                self._late += 1
                self._dropped += 1
                if now_ns <= deadline_ns:  # not its age, but the estimate made it hopeless
                    self._run_ns -= self._run_ns // 8
                entry.fate = EXPIRED
                by.ended += (entry,)
                continue
            if self._is_cut:
                entry.is_cut = True
                self._is_cut = False
            del self.waiting[0]
            entry.launched_ns = now_ns
            if by is not entry:
                entry.by = by
                if not by.is_over:
                    by.launches = entry
            self.running += (entry,)
            return entry
        return None

    def finish(self, computed_ns: int, done_ns: int) -> bool:
        """Take out the oldest running frame; returns whether its answer is to be delivered."""
        entry = self.running.popleft()
        took_ns = computed_ns - entry.launched_ns
        if took_ns < self._run_ns or not self._run_ns:
            self._run_ns = took_ns
        else:
            self._run_ns += (took_ns - self._run_ns) // 8  # a device may have become slower
        deadline_ns = entry.ticket.deadline_ns
        if deadline_ns is not None and done_ns > deadline_ns:
            self._late += 1
            if self._drops_late:
                self._dropped += 1
                return False
        self._delivered += 1
        if entry.ticket.stamp_ns > self._newest_stamp_ns:
            self._newest_stamp_ns = entry.ticket.stamp_ns
        return True

    def abandon(self, by: Entry[T]) -> None:
        """Take out every frame, lost, oldest first."""
        for frames in (self.running, self.waiting):
            while frames:
                entry = frames[0]
                del frames[0]
                self._lost += 1
                entry.fate = LOST
                by.ended += (entry,)

    def counters(self, now_ns: int) -> Counters:
        """Return what became of the frames so far."""
        age_ns = now_ns - self._newest_stamp_ns if self._newest_stamp_ns else 0
        return Counters(
            self._submitted,
            self._delivered,
            self._dropped,
            self._late,
            self._lost,
            len(self.waiting),
            len(self.running),
            age_ns / 1e6,
        )
