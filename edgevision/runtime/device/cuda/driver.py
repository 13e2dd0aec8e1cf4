"""The CUDA driver as `device` needs it: the few calls that both Python bindings can make.

Two implementations, `bindings` (NVIDIA's cuda-bindings) and `pycuda`. Handles are whatever the
binding likes; addresses and sizes are integers. A driver is the context manager that makes its
context current on a thread, and every call wants that. Each raises CudaError, with the driver's own
name for what failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgevision.runtime.device.memory import Bytes

Handle = Any
"""An object of the binding; only the driver that made it looks inside."""


class Driver(Protocol):
    """One GPU's primary context through one binding.

    Attributes:
        binding: the package and its version.
        name: the GPU's name.
        is_integrated: whether it shares the host's memory.
        can_map: whether it can reach host memory.
        missing: what this binding cannot do and why: "graphs", "priorities", "foreign_streams".
    """

    binding: str
    name: str
    is_integrated: bool
    can_map: bool
    missing: Mapping[str, str]

    def __enter__(self) -> None:
        """Make the primary context current on this thread; one driver serves every thread."""

    def __exit__(self, *error: object) -> None:
        """Give the thread back the context it had."""

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""

    def allocate(self, size_bytes: int) -> tuple[int, Handle]:
        """Return the address and handle of device memory."""

    def free(self, allocation: Handle) -> None:
        """Free it."""

    def allocate_host(self, size_bytes: int) -> tuple[Bytes, int, Handle]:
        """Return pinned memory: host view, device address (0 if unmapped), handle."""

    def free_host(self, allocation: Handle) -> None:
        """Free it; every view is void."""

    def stream(self, priority: int) -> tuple[int, Handle]:
        """Return the number and handle of a stream that ignores the legacy default stream."""

    def wrap_stream(self, handle: int) -> Handle:
        """Return the handle of a stream made elsewhere."""

    def destroy_stream(self, stream: Handle) -> None:
        """Destroy it; queued work still runs."""

    def synchronize_stream(self, stream: Handle) -> None:
        """Wait, without the interpreter's lock."""

    def copy_in(self, address: int, host: Bytes, stream: Handle) -> None:
        """Queue a copy from host memory."""

    def copy_out(self, host: Bytes, address: int, stream: Handle) -> None:
        """Queue a copy to host memory."""

    def copy_within(self, target: int, source: int, size_bytes: int, stream: Handle) -> None:
        """Queue a copy between addresses of the device."""

    def fill(self, address: int, value: int, size_bytes: int, stream: Handle) -> None:
        """Queue setting bytes."""

    def event(self, *, timing: bool, spin: bool) -> Handle:
        """Return an event."""

    def destroy_event(self, event: Handle) -> None:
        """Destroy it."""

    def record(self, event: Handle, stream: Handle, *, capturing: bool) -> None:
        """Queue the event; while capturing, as a node that each launch records again."""

    def wait(self, stream: Handle, event: Handle) -> None:
        """Hold the stream back for the event."""

    def is_done(self, event: Handle) -> bool:
        """Whether the event is done."""

    def synchronize_event(self, event: Handle) -> None:
        """Wait, without the interpreter's lock."""

    def intervals_ms(self, events: Sequence[Handle]) -> list[float]:
        """Return the time from each done event to the next."""

    def begin_capture(self, stream: Handle) -> None:
        """Start capturing, bound to this thread so that others may go on allocating."""

    def end_capture(self, stream: Handle) -> Handle:
        """End capturing and return the graph, ready to launch; frees what it cannot use."""

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Queue the graph."""

    def destroy_graph(self, graph: Handle) -> None:
        """Destroy it."""
