"""Which frame runs next, which is dropped, and what became of all of them: no threads, no clock.

The pipeline asks under its lock and gives the time; so every policy can be tested step by step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.stream.ticket import Ticket

T = TypeVar("T")
Policy = Literal["latest", "block", "drop_oldest"]

REPLACED = "a newer frame took its place"
HOPELESS = "it could not make its deadline any more"
CLOSED = "the pipeline was closed"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a pipeline treats frames that come faster than they can be run.

    Attributes:
        slots: frames that the pipeline holds at most, each with its own buffers.
        policy: what happens to a frame when they are all in use. "latest" keeps one frame on the
            device and one waiting, which a newer one replaces: the answer is as fresh as can be.
            "drop_oldest" fills the device and drops the frame that has waited longest. "block" lets
            `submit` wait and drops nothing.
        deadline_ms: after its stamp an answer is late; None for no deadline.
        on_late: "deliver" gives late answers, marked; "drop" does not run a frame that cannot make
            it any more, and gives no late answers.
        stall_ms: a device that has not answered for so long is reported as stuck.
    """

    slots: int = 3
    policy: Policy = "latest"
    deadline_ms: float | None = None
    on_late: Literal["deliver", "drop"] = "deliver"
    stall_ms: float = 10_000.0

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.policy not in ("latest", "block", "drop_oldest"):
            raise ValueError(f"policy: got '{self.policy}', expected latest, block or drop_oldest")
        if self.on_late not in ("deliver", "drop"):
            raise ValueError(f"on_late: got '{self.on_late}', expected deliver or drop")
        least = 1 if self.policy == "block" else 2
        if not least <= self.slots <= 64:
            raise ValueError(
                f"slots: got {self.slots}, policy '{self.policy}' takes {least} to 64: one frame "
                "runs while another waits"
            )
        if self.deadline_ms is not None and self.deadline_ms <= 0:
            raise ValueError(f"deadline_ms: got {self.deadline_ms}, expected more than 0")
        if self.stall_ms <= 0:
            raise ValueError(f"stall_ms: got {self.stall_ms}, expected more than 0")

    @property
    def depth(self) -> int:
        """How many frames may be on the device at once."""
        return {"latest": 1, "drop_oldest": self.slots - 1, "block": self.slots}[self.policy]


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


@dataclass(slots=True)
class Entry(Generic[T]):
    """A filled slot on its way."""

    slot: Slot
    ticket: Ticket[T]
    start_ns: int
    filled_ns: int
    launched_ns: int = 0


class Schedule(Generic[T]):
    """The frames inside a pipeline, oldest first; at most `depth` of them run at once."""

    def __init__(self, options: StreamOptions, *, depth: int) -> None:
        self.waiting: deque[Entry[T]] = deque()
        self.running: deque[Entry[T]] = deque()
        self.depth = depth
        self._replaces = options.policy == "latest"
        self._drops_late = options.on_late == "drop"
        self._submitted = self._delivered = self._dropped = self._late = self._lost = 0
        self._newest_stamp_ns = 0
        self._fastest_ns = 0

    @property
    def is_empty(self) -> bool:
        """Whether no frame is inside."""
        return not self.waiting and not self.running

    def inside(self) -> list[Entry[T]]:
        """Return the frames inside, oldest first."""
        return [*self.running, *self.waiting]

    def enter(self, entry: Entry[T]) -> Entry[T] | None:
        """Number a frame and let it wait; return the one that it replaces, if any."""
        entry.ticket.sequence = self._submitted
        self._submitted += 1
        replaced = self.drop_oldest() if self._replaces else None
        self.waiting.append(entry)
        return replaced

    def drop_oldest(self) -> Entry[T] | None:
        """Take out the frame that has waited longest; None if none waits."""
        if not self.waiting:
            return None
        self._dropped += 1
        return self.waiting.popleft()

    def start(self, now_ns: int) -> tuple[Entry[T], bool] | None:
        """Take the next waiting frame; returns it, and whether it still runs or is dropped.

        It is dropped if late frames are, and even the fastest run so far would end too late.
        None if no frame waits, or the device is full.
        """
        if not self.waiting or len(self.running) >= self.depth:
            return None
        entry = self.waiting.popleft()
        deadline_ns = entry.ticket.deadline_ns
        earliest_ns = now_ns + self._fastest_ns
        if self._drops_late and deadline_ns is not None and earliest_ns > deadline_ns:
            self._late += 1
            self._dropped += 1
            return entry, False
        entry.launched_ns = now_ns
        self.running.append(entry)
        return entry, True

    def finish(self, computed_ns: int, done_ns: int) -> bool:
        """Take out the oldest running frame; returns whether its answer is to be delivered."""
        entry = self.running.popleft()
        took_ns = computed_ns - entry.launched_ns
        if took_ns < self._fastest_ns or not self._fastest_ns:
            self._fastest_ns = took_ns
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

    def abandon(self) -> list[Entry[T]]:
        """Take out every frame, lost, oldest first."""
        entries = self.inside()
        self.running.clear()
        self.waiting.clear()
        self._lost += len(entries)
        return entries

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
