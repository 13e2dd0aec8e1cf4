"""A GPU as a `Device`: streams, events, graphs and buffers over either binding."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from edgevision.errors import CudaError, EdgeVisionError, MissingDependencyError
from edgevision.runtime.device.cuda.bindings import BindingsDriver
from edgevision.runtime.device.cuda.driver import Driver, Handle
from edgevision.runtime.device.cuda.pycuda import PycudaDriver
from edgevision.runtime.device.device import Capabilities, Capture, Event, Graph, Stream
from edgevision.runtime.device.memory import Buffer

_NOT_INITIALIZED = 3
_DRIVERS: dict[str, Callable[[int], Driver]] = {
    "cuda-bindings": BindingsDriver,
    "pycuda": PycudaDriver,
}
_devices: dict[tuple[str, int], CudaDevice] = {}
_lock = threading.Lock()
# Of the process that this one was forked from; kept, for freeing them here would touch its GPU.
_parents: list[CudaDevice] = []


def cuda_device(ordinal: int = 0, *, binding: str = "auto") -> CudaDevice:
    """Return the process's device for a GPU; it lives as long as the process.

    Args:
        ordinal: which GPU.
        binding: "cuda-bindings" or "pycuda"; "auto" takes the first that works.

    Raises:
        ValueError: no such binding.
        MissingDependencyError: neither binding is installed.
        CudaError: no binding finds a GPU; gives every reason. Or this process was forked from one
            that used it.
    """
    check_binding(binding)
    if _parents:
        raise CudaError(
            "this process was forked from one that used the GPU, and CUDA does not survive fork(). "
            "Start it with multiprocessing.get_context('spawn').",
            code=_NOT_INITIALIZED,
        )
    names = list(_DRIVERS) if binding == "auto" else [binding]
    reasons: list[tuple[str, EdgeVisionError]] = []
    with _lock:
        for name in names:
            if (name, ordinal) in _devices:
                return _devices[name, ordinal]
        for name in names:
            try:
                device = _devices[name, ordinal] = CudaDevice(_DRIVERS[name](ordinal), ordinal)
            except (CudaError, MissingDependencyError) as error:
                reasons.append((name, error))
            else:
                return device
    payload = "; ".join(f"{name}: {error}" for name, error in reasons)
    if all(isinstance(error, MissingDependencyError) for _, error in reasons):
        raise MissingDependencyError(f"no CUDA binding is installed. {payload}")
    raise CudaError(f"no GPU can be used. {payload}")


def _leave_to_parent() -> None:
    """In a forked child, give up what the parent opened, and a lock that a thread of it held."""
    global _lock
    _lock = threading.Lock()
    _parents.extend(_devices.values())
    _devices.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def check_binding(binding: str) -> None:
    """Raise ValueError unless `binding` is one that `cuda_device` knows."""
    if binding not in ("auto", *_DRIVERS):
        raise ValueError(f"binding: got {binding!r}, expected auto, {' or '.join(_DRIVERS)}")


class CudaDevice:
    """See `Device`; on the primary context, which torch, CuPy and TensorRT share."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver = driver
        self.ordinal = ordinal
        self.name = driver.name
        self.binding = driver.binding
        self.capabilities = Capabilities(
            pinned=True,
            mapped=driver.can_map,
            integrated=driver.is_integrated,
            graphs="graphs" not in driver.missing,
            async_copies=True,
            priorities="priorities" not in driver.missing,
            reasons=driver.missing,
        )

    def active(self) -> AbstractContextManager[object]:
        """Return what pushes the primary context, whatever context the thread had."""
        return self.driver

    def stream(self, *, priority: int = 0) -> CudaStream:
        """Return a new stream."""
        handle, stream = self.driver.stream(priority)
        return CudaStream(self.driver, handle, stream, owned=True)

    def foreign_stream(self, handle: int) -> CudaStream:
        """Return a stream made by another library; closing it does nothing."""
        return CudaStream(self.driver, handle, self.driver.wrap_stream(handle), owned=False)

    def event(self, *, timing: bool = False, spin: bool = False) -> CudaEvent:
        """Return a new event."""
        return CudaEvent(self.driver, self.driver.event(timing=timing, spin=spin))

    def intervals_ms(self, events: Sequence[Event]) -> list[float]:
        """Return the device time from each event to the next."""
        return self.driver.intervals_ms([event.event for event in events])  # type: ignore[attr-defined]

    def allocate(self, size_bytes: int, *, label: str) -> Buffer:
        """Return device memory."""
        driver = self.driver
        try:
            address, handle = driver.allocate(size_bytes)
        except CudaError as error:
            raise self._full(error, size_bytes, label) from error
        return Buffer(
            address=address,
            host=None,
            size_bytes=size_bytes,
            label=label,
            free=lambda: driver.free(handle),
        )

    def allocate_host(self, size_bytes: int, *, label: str) -> Buffer:
        """Return pinned memory, mapped where the GPU can."""
        driver = self.driver
        try:
            host, address, handle = driver.allocate_host(size_bytes)
        except CudaError as error:
            raise self._full(error, size_bytes, label) from error
        host[:] = 0
        return Buffer(
            address=address,
            host=host,
            size_bytes=size_bytes,
            label=label,
            free=lambda: driver.free_host(handle),
        )

    def memory(self) -> tuple[int, int]:
        """Return the GPU's free and total memory in bytes."""
        with self.driver:
            return self.driver.memory()

    def _full(self, error: CudaError, size_bytes: int, label: str) -> CudaError:
        free_bytes = 0
        with suppress(CudaError):
            free_bytes, _ = self.driver.memory()
        return CudaError(
            f"no {size_bytes} bytes for '{label}', {free_bytes} are free: {error}", code=error.code
        )


class CudaEvent:
    """See `Event`."""

    def __init__(self, driver: Driver, event: Handle) -> None:
        self.event = event
        self._driver = driver

    def is_done(self) -> bool:
        """Whether the work before it is done."""
        return self._driver.is_done(self.event)

    def synchronize(self) -> None:
        """Wait for it."""
        self._driver.synchronize_event(self.event)

    def close(self) -> None:
        """Destroy it."""
        if self.event is not None:
            event, self.event = self.event, None
            self._driver.destroy_event(event)


class CudaStream:
    """See `Stream`."""

    def __init__(self, driver: Driver, handle: int, stream: Handle, *, owned: bool) -> None:
        self.handle = handle
        self._driver = driver
        self._stream = stream
        self._owned = owned
        self._capturing = False

    def copy(self, target: Buffer, source: Buffer, size_bytes: int) -> None:
        """Queue a copy; memory that the host can reach is copied from there."""
        if source.host is not None and target.host is None:
            self._driver.copy_in(target.address, source.host[:size_bytes], self._stream)
        elif target.host is not None and source.host is None:
            self._driver.copy_out(target.host[:size_bytes], source.address, self._stream)
        else:
            self._driver.copy_within(target.address, source.address, size_bytes, self._stream)

    def fill(self, target: Buffer, value: int, size_bytes: int) -> None:
        """Queue setting bytes."""
        self._driver.fill(target.address, value, size_bytes, self._stream)

    def record(self, event: Event) -> None:
        """Queue `event`."""
        assert isinstance(event, CudaEvent)
        self._driver.record(event.event, self._stream, capturing=self._capturing)

    def wait(self, event: Event) -> None:
        """Hold back later work until `event`."""
        assert isinstance(event, CudaEvent)
        self._driver.wait(self._stream, event.event)

    def synchronize(self) -> None:
        """Wait for all queued work."""
        self._driver.synchronize_stream(self._stream)

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Collect the queued work into a graph."""
        self._driver.begin_capture(self._stream)
        self._capturing = True
        captured = _Capture()
        try:
            yield captured
        except BaseException:
            self._capturing = False
            # Ends the capture whatever its state, or the stream could never be used again.
            with suppress(CudaError):
                self._driver.destroy_graph(self._driver.end_capture(self._stream))
            raise
        self._capturing = False
        captured.graph = CudaGraph(self._driver, self._driver.end_capture(self._stream))

    def close(self) -> None:
        """Destroy it if it is ours."""
        if self._owned and self._stream is not None:
            stream, self._stream = self._stream, None
            self._driver.destroy_stream(stream)


class CudaGraph:
    """See `Graph`."""

    def __init__(self, driver: Driver, graph: Handle) -> None:
        self._driver = driver
        self._graph = graph

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        assert isinstance(stream, CudaStream)
        self._driver.launch(self._graph, stream._stream)

    def close(self) -> None:
        """Destroy it."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._driver.destroy_graph(graph)


class _Capture:
    """See `Capture`."""

    graph: Graph
