"""A device without hardware: work runs late and in adversarial order, and every race is an error.

It fulfils `runtime.device.device.Device`, so that the runtime, and a user's own code around it,
can be driven through schedules that a real GPU shows once a month. What it finds does not depend on
the order that happened: see `_ordering`. The order is real nevertheless, so that wrong code also
gets wrong bytes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

from edgevision.errors import CudaError, HazardError
from edgevision.runtime.device.device import Capabilities, Event
from edgevision.runtime.device.memory import Buffer
from edgevision.testing._core import Core, Order
from edgevision.testing._ordering import place
from edgevision.testing._streams import SimulatedEvent, SimulatedStream

_LEGACY_STREAM = 1


class SimulatedDevice(Core):
    """A GPU in numpy whose streams and events are the only order there is.

    Args:
        order: "eager" runs work when it is queued, "lazy" only when somebody waits for it, and a
            number seeds a random order in between.
        integrated: whether host and device share their memory.
        graphs: whether work can be captured.
        memory_bytes: of the device.

    Attributes:
        copies: how many ran so far, by the labels of source and target.

    Example:
        >>> device = SimulatedDevice(order="lazy")
        >>> with device.active():
        ...     stream = device.stream()
        ...     host = device.allocate_host(4, label="host")
        ...     stream.fill(host, 7, 4)
        ...     host.host[0]
        Traceback (most recent call last):
        edgevision.errors.HazardError: read by the host at ...
    """

    name = "simulated device"
    binding = "edgevision.testing"
    ordinal = 0

    def __init__(
        self,
        *,
        order: Order = "lazy",
        integrated: bool = False,
        graphs: bool = True,
        memory_bytes: int = 1 << 30,
    ) -> None:
        if order not in ("eager", "lazy") and not isinstance(order, int):
            raise ValueError(f"order: got {order!r}, expected 'eager', 'lazy' or a seed")
        capabilities = Capabilities(
            pinned=True,
            mapped=True,
            integrated=integrated,
            graphs=graphs,
            async_copies=True,
            priorities=True,
            reasons={} if graphs else {"graphs": "this simulated device was made without graphs"},
        )
        super().__init__(capabilities, order, memory_bytes)
        self._streams: weakref.WeakValueDictionary[int, SimulatedStream] = (
            weakref.WeakValueDictionary()
        )
        self._numbers = 0

    # What a device does

    def active(self) -> AbstractContextManager[object]:
        """Return what makes the device usable on a thread inside `with`."""
        return _Active(self._depth)

    def stream(self, *, priority: int = 0) -> SimulatedStream:
        """Return a new stream."""
        self.check_active("stream")
        with self.lock:
            self.live["stream"] += 1
            self._numbers += 1
            return self._new_stream(self._numbers)

    def foreign_stream(self, handle: int) -> SimulatedStream:
        """Return the stream with that handle, 1 for the legacy default stream, which is there.

        Closing what is returned closes the stream.
        """
        with self.lock:
            if handle == _LEGACY_STREAM and handle not in self._streams:
                return self._new_stream(0, handle)
            if handle in self._streams:
                return self._streams[handle]
        raise CudaError(f"there is no stream {handle}")

    def event(self, *, timing: bool = False, spin: bool = False) -> SimulatedEvent:
        """Return a new event."""
        self.check_active("event")
        with self.lock:
            self.live["event"] += 1
            return SimulatedEvent(self, timing=timing)

    def intervals_ms(self, events: Sequence[Event]) -> list[float]:
        """Return one millisecond for each operation that ran in between."""
        for event in events:
            assert isinstance(event, SimulatedEvent)
            if not event.timing:
                raise CudaError(f"intervals_ms at {place()}: an event was made without timing")
            if event.operation is None or not event.operation.is_done:
                raise HazardError(f"intervals_ms at {place()}: an event is not done")
        times = [float(event.ran_at) for event in events if isinstance(event, SimulatedEvent)]
        return [end - begin for begin, end in pairwise(times)]

    def allocate(self, size_bytes: int, *, label: str) -> Buffer:
        """Return device memory, which the host cannot reach."""
        return self.new_buffer(size_bytes, label, on_host=False)

    def allocate_host(self, size_bytes: int, *, label: str) -> Buffer:
        """Return pinned and mapped host memory, as an array that asks before it is used."""
        return self.new_buffer(size_bytes, label, on_host=True)

    # What a test does with it

    def fail_at(self, operation: int, *, on_device: bool = False) -> None:
        """Let the nth operation from now fail: when queued, or on the device, which dies of it."""
        with self.lock:
            self._failures[self.operations + operation] = on_device

    def stall(self) -> None:
        """Stop all work: who waits, waits until `resume`."""
        with self.lock:
            self._stalled = True

    def resume(self) -> None:
        """Let work go on after `stall`."""
        with self._moving:
            self._stalled = False
            self._moving.notify_all()

    def _new_stream(self, number: int, handle: int | None = None) -> SimulatedStream:
        stream = SimulatedStream(self, number, handle)
        self._streams[stream.handle] = stream
        self._queues.append(stream)
        return stream


class _Active:
    """Counts how deep each thread is inside."""

    def __init__(self, depth: threading.local) -> None:
        self._depth = depth

    def __enter__(self) -> None:
        self._depth.value = getattr(self._depth, "value", 0) + 1

    def __exit__(self, *error: object) -> None:
        self._depth.value -= 1
