"""The device seam: what the runtime asks of a device, its streams, events and graphs.

Implementations: `host` (numpy), `cuda` (over cuda-bindings or pycuda) and
`edgevision.testing.SimulatedDevice`. Callers branch on `Capabilities`, never on which one it is.
Widening a protocol here means changing all of them: pause before you do.

The rules that hold for every implementation:

- Streams, events, buffers and graphs are made by a device, used between `with device.active():` on
  any thread, and closed by whoever asked for them; `close()` may be called twice.
- Work on one stream runs in order. Between streams, and between a stream and the host, nothing is
  ordered but by events and `synchronize()`.
- Host memory given to `Stream.copy` must stay untouched until the copy is known to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from edgevision.runtime.device.memory import Buffer


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do.

    Attributes:
        pinned: `allocate_host` gives memory that the device copies from while the host goes on.
        mapped: host memory from `allocate_host` can be read and written by engines directly.
        integrated: host and device share their memory, so `mapped` buffers make copies needless.
        graphs: work can be captured once and launched as a whole.
        async_copies: work is queued and returns at once; without it every call is done on return.
        priorities: streams take a priority.
        reasons: why a capability is missing, by its name.
    """

    pinned: bool
    mapped: bool
    integrated: bool
    graphs: bool
    async_copies: bool
    priorities: bool
    reasons: Mapping[str, str] = field(default_factory=dict)


class Event(Protocol):
    """A point in a stream's work; made by `Device.event`."""

    def is_done(self) -> bool:
        """Whether the work before the last `Stream.record` is done; True if never recorded."""

    def synchronize(self) -> None:
        """Wait on this thread until it is; the interpreter's lock is released meanwhile."""

    def close(self) -> None:
        """Free it."""


class Graph(Protocol):
    """Captured work, launched as a whole; the buffers and executions in it must outlive it."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it on `stream`."""

    def close(self) -> None:
        """Free it."""


class Capture(Protocol):
    """A capture under way; `graph` is there once its `with` block has ended without an error."""

    graph: Graph


class Stream(Protocol):
    """A queue of work; made by `Device.stream`.

    Attributes:
        handle: the number that engines take for it (a CUstream); 0 where there is none.
    """

    handle: int

    def copy(self, target: Buffer, source: Buffer, size_bytes: int) -> None:
        """Queue a copy of the first `size_bytes` between any two buffers."""

    def fill(self, target: Buffer, value: int, size_bytes: int) -> None:
        """Queue setting the first `size_bytes` to the byte `value`."""

    def record(self, event: Event) -> None:
        """Queue `event`: it is done once all work queued before is done."""

    def wait(self, event: Event) -> None:
        """Hold back all work queued from now on until `event` is done."""

    def synchronize(self) -> None:
        """Wait on this thread until all queued work is done."""

    def capture(self) -> AbstractContextManager[Capture]:
        """Collect the work queued inside the `with` block into a graph instead of running it.

        Raises:
            CudaError: the device cannot, or something inside may not be captured.
        """

    def close(self) -> None:
        """Free it; work still queued is not waited for."""


class Device(Protocol):
    """Where engines run: makes streams, events and memory.

    Attributes:
        name: what the vendor calls it.
        binding: the package through which it is driven.
        ordinal: which of the machine's GPUs it is, 0 for the first and for the host.
        capabilities: what it can do.
    """

    name: str
    binding: str
    ordinal: int
    capabilities: Capabilities

    def active(self) -> AbstractContextManager[object]:
        """Return what makes the device usable on a thread inside `with`.

        One serves every thread, any number of times, nested or not.
        """

    def stream(self, *, priority: int = 0) -> Stream:
        """Return a new stream; lower numbers go first, clamped to what the device has."""

    def foreign_stream(self, handle: int) -> Stream:
        """Return a stream made by another library; closing it does nothing."""

    def event(self, *, timing: bool = False, spin: bool = False) -> Event:
        """Return a new event; `spin` waits with a busy core for the lowest latency."""

    def intervals_ms(self, events: Sequence[Event]) -> list[float]:
        """Return the device time from each event to the next.

        All must be done and made with timing.
        """

    def allocate(self, size_bytes: int, *, label: str) -> Buffer:
        """Return device memory; `label` names it in errors."""

    def allocate_host(self, size_bytes: int, *, label: str) -> Buffer:
        """Return host memory, pinned and mapped where the device can."""

    def memory(self) -> tuple[int, int]:
        """Return the device's free and total memory in bytes."""
