"""Streams, events and graphs of the simulated device: queues of work that wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edgevision.errors import CudaError, HazardError
from edgevision.runtime.device.device import Capture, Event, Graph, Stream
from edgevision.runtime.device.memory import Buffer
from edgevision.testing._core import NOT_CAPTURABLE, Core, Operation, Queue
from edgevision.testing._ordering import Clock, merge, place


class SimulatedEvent:
    """See `Event`."""

    def __init__(self, device: Core, *, timing: bool) -> None:
        self.operation: Operation | None = None
        self.clock: Clock = {}
        self.ran_at = 0
        self._device = device
        self.timing = timing
        self._is_open = True

    def is_done(self) -> bool:
        """Whether the work before it is done; some work runs meanwhile."""
        self._device.check_active("is_done")
        with self._device.lock:
            done = self.operation is None or self._device.poll(self.operation)
            if done:
                merge(self._device.known, self.clock)
            return done

    def synchronize(self) -> None:
        """Wait for the work before it."""
        self._device.check_active("synchronize")
        if not self._is_open:
            raise HazardError(f"synchronize at {place()}: the event was closed")
        with self._device.lock:
            operation, clock = self.operation, dict(self.clock)
            if operation is not None:
                self._device.finish(operation)
            merge(self._device.known, clock)

    def close(self) -> None:
        """Free it."""
        if self._is_open:
            self._is_open = False
            self._device.live["event"] -= 1


class SimulatedStream(Queue):
    """See `Stream`."""

    def __init__(self, device: Core, number: int, handle: int | None = None) -> None:
        super().__init__(number)
        self.handle = 0x1000 + number if handle is None else handle
        self._captured: _Capture | None = None
        self._device = device
        self._is_open = True

    def copy(self, target: Buffer, source: Buffer, size_bytes: int) -> None:
        """Queue a copy; the bytes are read when it runs."""
        if size_bytes > min(target.size_bytes, source.size_bytes):
            raise CudaError(f"copy at {place()}: {size_bytes} bytes are more than a buffer has")
        device = self._device
        where = place()

        def run() -> None:
            to = device.find(target, "copy", where).data
            to[:size_bytes] = device.find(source, "copy", where).data[:size_bytes]
            device.copies[source.label, target.label] += 1

        self._enqueue("copy", [source], [target], run, where)

    def fill(self, target: Buffer, value: int, size_bytes: int) -> None:
        """Queue setting bytes."""
        device = self._device
        where = place()

        def run() -> None:
            device.find(target, "fill", where).data[:size_bytes] = value

        self._enqueue("fill", [], [target], run, where)

    def record(self, event: Event) -> None:
        """Queue `event`; while capturing, each launch of the graph records it again."""
        assert isinstance(event, SimulatedEvent)
        self._device.check_active("record")
        with self._device.lock:
            self._device.check_alive()
            if self._captured is not None:
                self._captured.steps.append(lambda stream: stream.mark(event))
            else:
                self.mark(event)

    def wait(self, event: Event) -> None:
        """Hold back later work until `event`."""
        assert isinstance(event, SimulatedEvent)
        self._device.check_active("wait")
        with self._device.lock:
            self._device.check_alive()
            if self._captured is not None:
                raise CudaError(
                    f"wait at {place()}: an event from outside cannot be waited for in a capture",
                    code=NOT_CAPTURABLE,
                )
            if event.operation is not None:
                merge(self.clock, event.clock)
                self.append(None, after=event.operation)

    def synchronize(self) -> None:
        """Wait for all queued work."""
        self._device.check_active("synchronize")
        with self._device.lock:
            if self._captured is not None:
                raise CudaError(
                    f"synchronize at {place()}: a stream cannot be waited for while it captures",
                    code=NOT_CAPTURABLE,
                )
            clock = dict(self.clock)
            if self.queue:
                self._device.finish(self.queue[-1])
            merge(self._device.known, clock)

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Collect the queued work into a graph."""
        self._device.check_active("capture")
        if not self._device.capabilities.graphs:
            raise CudaError(f"no capture: {self._device.capabilities.reasons['graphs']}")
        captured = self._captured = _Capture()
        self.is_capturing = True
        try:
            yield captured
        finally:
            self._captured = None
            self.is_capturing = False
        self._device.live["graph"] += 1
        captured.graph = SimulatedGraph(self._device, captured.steps)

    def close(self) -> None:
        """Free it; queued work still runs."""
        if self._is_open:
            self._is_open = False
            self._device.retire(self)

    def mark(self, event: SimulatedEvent) -> None:
        """Let `event` stand for all work queued so far."""

        def run() -> None:
            event.ran_at = self._device.operations

        merge(self.clock, self._device.known)
        event.operation = self.append(run)
        event.clock = dict(self.clock)

    def _enqueue(
        self,
        what: str,
        reads: Sequence[Buffer],
        writes: Sequence[Buffer],
        action: Callable[[], None],
        where: str,
    ) -> None:
        self._device.check_active(what)
        with self._device.lock:
            if not self._is_open:
                raise HazardError(f"{what} at {where}: the stream was closed")
            if self._captured is not None:
                self._captured.steps.append(
                    lambda stream: stream._device.enqueue(
                        stream, f"captured {what}", reads, writes, action, where
                    )
                )
                return
            self._device.enqueue(self, what, reads, writes, action, where)


class SimulatedGraph:
    """See `Graph`."""

    def __init__(self, device: Core, steps: Sequence[Callable[[SimulatedStream], None]]) -> None:
        self._device = device
        self._steps = steps
        self._is_open = True

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        assert isinstance(stream, SimulatedStream)
        self._device.check_active("launch")
        if not self._is_open:
            raise HazardError(f"launch at {place()}: the graph was closed")
        with self._device.lock:
            for step in self._steps:
                step(stream)

    def close(self) -> None:
        """Free it."""
        if self._is_open:
            self._is_open = False
            self._device.live["graph"] -= 1


class _Capture:
    graph: Graph

    def __init__(self) -> None:
        self.steps: list[Callable[[SimulatedStream], None]] = []
