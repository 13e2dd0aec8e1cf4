"""What must have happened before what, on a simulated device: clocks, accesses and hazards.

Vector clocks (Mattern 1989, "Virtual time and global states of distributed systems") with one entry
per stream: work is ordered after an access if its clock has seen that access. A missing wait is
found whatever order the work happens to run in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from edgevision.errors import HazardError

Clock = dict[int, int]
"""The latest known operation of each stream, by the stream's number."""


@dataclass(frozen=True, slots=True)
class Access:
    """One operation's use of a buffer: the stream, its sequence number, what and where."""

    stream: int
    sequence: int
    what: str
    place: str

    def __str__(self) -> str:
        """Return e.g. `copy on stream 2 at slot.py:120`."""
        return f"{self.what} on stream {self.stream} at {self.place}"

    def is_known_to(self, clock: Clock) -> bool:
        """Whether `clock` has seen it."""
        return clock.get(self.stream, 0) >= self.sequence


@dataclass(slots=True)
class Accesses:
    """The last write of a buffer, and the reads since."""

    write: Access | None = None
    reads: list[Access] = field(default_factory=list)

    def check_read(self, clock: Clock, label: str, what: str, place: str) -> None:
        """Raise HazardError unless the last write is known to `clock`."""
        if self.write is not None and not self.write.is_known_to(clock):
            raise HazardError(
                f"{what} at {place} reads '{label}' before the {self.write} is known to be done"
            )

    def check_write(self, clock: Clock, label: str, what: str, place: str) -> None:
        """Raise HazardError unless the last write and every read since are known to `clock`."""
        self.check_read(clock, label, what, place)
        for read in self.reads:
            if not read.is_known_to(clock):
                raise HazardError(
                    f"{what} at {place} overwrites '{label}' while the {read} may still read it"
                )

    def add(self, access: Access, *, writes: bool) -> None:
        """Note an access that was checked."""
        if writes:
            self.write, self.reads = access, []
        else:
            self.reads = [r for r in self.reads if r.stream != access.stream] + [access]

    def forget(self, stream: int) -> None:
        """Drop the accesses of a stream, which everybody knows of."""
        if self.write is not None and self.write.stream == stream:
            self.write = None
        self.reads = [read for read in self.reads if read.stream != stream]


def merge(clock: Clock, other: Clock) -> None:
    """Let `clock` know what `other` knows."""
    for stream, sequence in other.items():
        if clock.get(stream, 0) < sequence:
            clock[stream] = sequence


def place() -> str:
    """Return `file:line (function)` of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("edgevision.testing"):
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} ({code.co_name})"
