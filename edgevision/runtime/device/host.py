"""The host as a device: numpy memory, everything done on return."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from time import perf_counter_ns

import numpy as np

from edgevision.errors import CudaError
from edgevision.runtime.device.device import Capabilities, Capture, Event, Stream
from edgevision.runtime.device.memory import Buffer

_NO_GRAPHS = "the host runs each call at once, there is nothing to capture"
_ACTIVE = contextlib.nullcontext()


class HostEvent:
    """The time at which it was recorded."""

    def __init__(self) -> None:
        self.recorded_ns = 0

    def is_done(self) -> bool:
        """Whether the work before it is done; on the host it always is."""
        return True

    def synchronize(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class HostStream:
    """Runs each piece of work when it is queued."""

    handle = 0

    def copy(self, target: Buffer, source: Buffer, size_bytes: int) -> None:
        """Copy the first `size_bytes`."""
        assert target.host is not None
        assert source.host is not None
        np.copyto(target.host[:size_bytes], source.host[:size_bytes])

    def fill(self, target: Buffer, value: int, size_bytes: int) -> None:
        """Set the first `size_bytes` to `value`."""
        assert target.host is not None
        target.host[:size_bytes] = value

    def record(self, event: Event) -> None:
        """Note the time in `event`."""
        assert isinstance(event, HostEvent)
        event.recorded_ns = perf_counter_ns()

    def wait(self, event: Event) -> None:
        """Return at once: the event is done."""

    def synchronize(self) -> None:
        """Return at once."""

    def capture(self) -> AbstractContextManager[Capture]:
        """Refuse; see `Capabilities.graphs`."""
        raise CudaError(f"no capture: {_NO_GRAPHS}")

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class HostDevice:
    """The machine's own processor and memory."""

    name = "host"
    binding = "numpy"
    ordinal = 0
    # Host memory is what engines on the host read and write: the same case as an integrated GPU.
    capabilities = Capabilities(
        pinned=False,
        mapped=True,
        integrated=True,
        graphs=False,
        async_copies=False,
        priorities=False,
        reasons={
            "pinned": "host memory needs no pinning for the host",
            "graphs": _NO_GRAPHS,
            "async_copies": "the host runs each call at once",
            "priorities": "the operating system schedules threads",
        },
    )

    def active(self) -> AbstractContextManager[object]:
        """Return a context manager that does nothing."""
        return _ACTIVE

    def stream(self, *, priority: int = 0) -> HostStream:
        """Return a stream; it has no priority."""
        return HostStream()

    def foreign_stream(self, handle: int) -> Stream:
        """Refuse: a CUDA stream means nothing to the host."""
        raise CudaError(f"stream {handle:#x} belongs to a GPU; this model runs on the host")

    def event(self, *, timing: bool = False, spin: bool = False) -> HostEvent:
        """Return an event."""
        return HostEvent()

    def intervals_ms(self, events: Sequence[Event]) -> list[float]:
        """Return the time from each event to the next."""
        times = [event.recorded_ns for event in events if isinstance(event, HostEvent)]
        return [(end - begin) / 1e6 for begin, end in pairwise(times)]

    def allocate(self, size_bytes: int, *, label: str) -> Buffer:
        """Return host memory, zeroed and aligned to 64 bytes."""
        return self.allocate_host(size_bytes, label=label)

    def allocate_host(self, size_bytes: int, *, label: str) -> Buffer:
        """Return host memory, zeroed and aligned to 64 bytes, which vector code likes best."""
        block = np.zeros(size_bytes + 64, np.uint8)
        start = -block.ctypes.data % 64
        host = block[start : start + size_bytes]
        return Buffer(
            address=host.ctypes.data,
            host=host,
            size_bytes=size_bytes,
            label=label,
            free=_nothing,
            handle=block,
        )

    def memory(self) -> tuple[int, int]:
        """Return the machine's free and total memory in bytes."""
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        return (
            os.sysconf("SC_AVPHYS_PAGES") * page_bytes,
            os.sysconf("SC_PHYS_PAGES") * page_bytes,
        )


def _nothing() -> None:
    """Let numpy free the memory with its last view."""
