"""Streams, events and graphs of the simulated device: queues of work that wait for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgevision.errors import CudaError, HazardError
from edgevision.runtime.device.device import Capture, Event, Graph, Stream
from edgevision.runtime.device.memory import Buffer
from edgevision.testing._ordering import Clock, merge, place

if TYPE_CHECKING:
    from edgevision.testing.simulated import SimulatedDevice

NOT_CAPTURABLE = 900


class SimulatedEvent:
    """See `Event`."""

    def __init__(self, device: SimulatedDevice, *, timing: bool) -> None:
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


class SimulatedStream:
    """See `Stream`."""

    def __init__(self, device: SimulatedDevice, number: int) -> None:
        self.number = number
        self.handle = 0x1000 + number
        self.clock: Clock = {}
        self.queue: deque[Operation] = deque()
        self.capturing: _Capture | None = None
        self._device = device
        self._sequence = 0
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
        """Queue `event`; while capturing, each launch of the graph records it anew."""
        assert isinstance(event, SimulatedEvent)
        self._device.check_active("record")
        with self._device.lock:
            self._device.check_alive()
            if self.capturing is not None:
                self.capturing.steps.append(lambda stream: stream.mark(event))
            else:
                self.mark(event)

    def wait(self, event: Event) -> None:
        """Hold back later work until `event`."""
        assert isinstance(event, SimulatedEvent)
        self._device.check_active("wait")
        with self._device.lock:
            self._device.check_alive()
            if self.capturing is not None:
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
            if self.capturing is not None:
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
        captured = self.capturing = _Capture()
        try:
            yield captured
        finally:
            self.capturing = None
        self._device.live["graph"] += 1
        captured.graph = SimulatedGraph(self._device, captured.steps)

    def close(self) -> None:
        """Free it; queued work still runs."""
        if self._is_open:
            self._is_open = False
            self._device.live["stream"] -= 1

    def mark(self, event: SimulatedEvent) -> None:
        """Let `event` stand for all work queued so far."""

        def run() -> None:
            event.ran_at = self._device.operations

        merge(self.clock, self._device.known)
        event.operation = self.append(run)
        event.clock = dict(self.clock)

    def append(
        self, action: Callable[[], None] | None, *, after: Operation | None = None
    ) -> Operation:
        """Queue an operation that has been checked."""
        self._sequence += 1
        self.clock[self.number] = self._sequence
        operation = Operation(self, self._sequence, action, after)
        self.queue.append(operation)
        return operation

    def is_ready(self) -> bool:
        """Whether its next operation may run."""
        return bool(self.queue) and (self.queue[0].after is None or self.queue[0].after.is_done)

    def run_next(self) -> None:
        """Run its next operation."""
        operation = self.queue.popleft()
        if operation.action is not None:
            operation.action()
        operation.is_done = True

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
            if self.capturing is not None:
                self.capturing.steps.append(
                    lambda stream: stream._device.enqueue(
                        stream, f"captured {what}", reads, writes, action, where
                    )
                )
                return
            self._device.enqueue(self, what, reads, writes, action, where)


class SimulatedGraph:
    """See `Graph`."""

    def __init__(
        self, device: SimulatedDevice, steps: Sequence[Callable[[SimulatedStream], None]]
    ) -> None:
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


class Operation:
    """Queued work; `after` is what it waits for besides its own stream."""

    __slots__ = ("action", "after", "is_done", "sequence", "stream")

    def __init__(
        self,
        stream: SimulatedStream,
        sequence: int,
        action: Callable[[], None] | None,
        after: Operation | None,
    ) -> None:
        self.stream = stream
        self.sequence = sequence
        self.action = action
        self.after = after
        self.is_done = False
