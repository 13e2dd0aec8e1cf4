"""The inside of a simulated device: queues of work, what may run next, and who used which memory.

What is queued is checked against all that is known to be done (`_ordering`); when it runs is the
device's whim.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from edgevision.errors import CudaError, HazardError
from edgevision.runtime.device.device import Capabilities
from edgevision.runtime.device.memory import Buffer
from edgevision.testing._ordering import Access, Accesses, Clock, merge, place
from edgevision.testing._watched import watched

Order: TypeAlias = "str | int"

NOT_CAPTURABLE = 900
_NEW, _FREED = 0xA5, 0xDD
_FIRST_ADDRESS = 0x7000_0000_0000
_ILLEGAL_ADDRESS = 700
_NO_CONTEXT = 201
_OUT_OF_MEMORY = 2


class Operation:
    """Queued work; `after` is what it waits for besides its own stream."""

    __slots__ = ("action", "after", "is_done", "sequence", "stream")

    def __init__(
        self,
        stream: Queue,
        sequence: int,
        action: Callable[[], None] | None,
        after: Operation | None,
    ) -> None:
        self.stream = stream
        self.sequence = sequence
        self.action = action
        self.after = after
        self.is_done = False


class Queue:
    """A stream's work, in order.

    Attributes:
        number: the stream's.
        clock: what is known to be done when its next operation runs.
        queue: what has not run.
        is_capturing: whether work is collected, not queued.
        sequence: how many operations were queued.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.clock: Clock = {}
        self.queue: deque[Operation] = deque()
        self.is_capturing = False
        self.sequence = 0

    def append(
        self, action: Callable[[], None] | None, *, after: Operation | None = None
    ) -> Operation:
        """Queue an operation that has been checked."""
        self.sequence += 1
        self.clock[self.number] = self.sequence
        operation = Operation(self, self.sequence, action, after)
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


class Core:
    """Queues, memory and failures of one device; `SimulatedDevice` is what users see of it.

    Attributes:
        capabilities: what the device can do.
        copies: how many ran so far, by the labels of source and target.
        live: how many there are of each kind of thing that is to be freed.
        lock: guards all of it.
        known: what the host has seen done.
        operations: how many were queued.
    """

    def __init__(self, capabilities: Capabilities, order: Order, memory_bytes: int) -> None:
        self.capabilities = capabilities
        self.lock = threading.RLock()
        self.known: Clock = {}
        self.operations = 0
        self.copies: Counter[tuple[str, str]] = Counter()
        self.live: dict[str, int] = {"buffer": 0, "event": 0, "graph": 0, "stream": 0}
        self._order = order
        self._random = random.Random(order if isinstance(order, int) else 0)
        self._queues: list[Queue] = []
        self._buffers: dict[int, _Memory] = {}
        self._memory_bytes = memory_bytes
        self._next_address = _FIRST_ADDRESS
        self._depth = threading.local()
        self._failures: dict[int, bool] = {}
        self._dead: CudaError | None = None
        self._moving = threading.Condition(self.lock)
        self._stalled = False

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""
        with self.lock:
            used = sum(memory.data.size for memory in self._buffers.values())
            return self._memory_bytes - used, self._memory_bytes

    def check_active(self, what: str) -> None:
        """Raise CudaError unless this thread is inside `with device.active():`."""
        if not getattr(self._depth, "value", 0):
            raise CudaError(
                f"{what} at {place()}: no context is current on this thread; use `with "
                "device.active():`",
                code=_NO_CONTEXT,
            )

    def check_alive(self) -> None:
        """Raise the error that killed the device, if one did."""
        if self._dead is not None:
            raise self._dead

    def enqueue(
        self,
        stream: Queue,
        what: str,
        reads: Sequence[Buffer],
        writes: Sequence[Buffer],
        action: Callable[[], None],
        where: str,
    ) -> None:
        """Queue an operation, after checking that all it uses is ready."""
        self.check_alive()
        clock = stream.clock
        merge(clock, self.known)  # queueing comes after all that the host has seen done
        for buffer in reads:
            memory = self.find(buffer, what, where)
            memory.accesses.check_read(clock, buffer.label, what, where)
        for buffer in writes:
            memory = self.find(buffer, what, where)
            memory.accesses.check_write(clock, buffer.label, what, where)
        self.operations += 1
        on_device = self._failures.pop(self.operations, None)
        if on_device is False:
            raise CudaError(f"{what} at {where}: failed as the test asked", code=1)
        operation = stream.append(self._deadly if on_device else action)
        access = Access(stream.number, operation.sequence, what, where)
        for buffer in reads:
            self.find(buffer, what, where).accesses.add(access, writes=False)
        for buffer in writes:
            self.find(buffer, what, where).accesses.add(access, writes=True)
        self._make_progress()

    def retire(self, stream: Queue) -> None:
        """Forget a stream that was closed: a device may see thousands of them."""
        with self.lock:
            self.live["stream"] -= 1
            if stream.queue:
                return  # it still runs
            self._queues.remove(stream)
            if self.known.get(stream.number, 0) >= stream.sequence:
                # All that it did is known to the host, and so to whatever is queued from now on.
                self.known.pop(stream.number, None)
                for memory in self._buffers.values():
                    memory.accesses.forget(stream.number)

    def find(self, buffer: Buffer, what: str, where: str) -> _Memory:
        """Return a buffer's memory.

        Raises:
            HazardError: the buffer was freed, or is not of this device.
        """
        memory = self._buffers.get(buffer.address)
        if memory is None or not buffer.is_open:
            raise HazardError(f"{what} at {where} uses '{buffer.label}', which is not allocated")
        return memory

    def finish(self, operation: Operation) -> None:
        """Run work in the device's order until `operation` is done."""
        with self._moving:
            while self._stalled:
                self._moving.wait()
            while not operation.is_done:
                self.check_alive()
                if self._order == "lazy":
                    self._run_needed(operation)
                else:
                    self._run_one()
            self.check_alive()

    def poll(self, operation: Operation) -> bool:
        """Let some work run, as time passes between two polls; return whether it is done."""
        self.check_alive()
        if not operation.is_done and not self._stalled:
            if self._order == "lazy":
                self._run_needed(operation, only_one=True)
            else:
                self._run_one()
        return operation.is_done

    def _make_progress(self) -> None:
        if self._stalled or self._order == "lazy":
            return
        chance = 1.0 if self._order == "eager" else 0.5
        while self._random.random() < chance and self._run_one(strict=False):
            pass

    def _run_one(self, *, strict: bool = True) -> bool:
        ready = [stream for stream in self._queues if stream.is_ready()]
        if not ready:
            if strict:
                raise HazardError("the streams wait for each other: nothing can run")
            return False
        self._random.choice(ready).run_next()
        return True

    def _run_needed(self, operation: Operation, *, only_one: bool = False) -> None:
        """Run what `operation` waits for and nothing else."""
        stack = [operation]
        while stack and not operation.is_done:
            stream = stack[-1].stream
            if stack[-1].is_done:
                stack.pop()
            elif stream.is_ready():
                stream.run_next()
                if only_one:
                    return
            else:
                blocker = stream.queue[0].after
                assert blocker is not None
                if blocker in stack:
                    raise HazardError("the streams wait for each other: nothing can run")
                stack.append(blocker)

    def _deadly(self) -> None:
        self._dead = CudaError(
            "an illegal memory access on the device; every later call fails with it",
            code=_ILLEGAL_ADDRESS,
        )

    def new_buffer(self, size_bytes: int, label: str, *, on_host: bool) -> Buffer:
        """Return memory, as an array that asks before it is used if it is the host's."""
        self.check_active("allocate")
        where = place()
        with self.lock:
            self.check_alive()
            if any(queue.is_capturing for queue in self._queues):
                raise CudaError(
                    f"allocate '{label}' at {where}: memory cannot be allocated during a capture",
                    code=NOT_CAPTURABLE,
                )
            free_bytes, _ = self.memory()
            if size_bytes > free_bytes:
                raise CudaError(
                    f"no {size_bytes} bytes for '{label}', {free_bytes} are free",
                    code=_OUT_OF_MEMORY,
                )
            address = self._next_address
            self._next_address += -(-size_bytes // 4096) * 4096 + 4096
            memory = self._buffers[address] = _Memory(np.full(size_bytes, _NEW, np.uint8))
            self.live["buffer"] += 1
        host = None
        if on_host:
            host = watched(memory.data, lambda writes: self._ask(buffer, memory, writes=writes))
        buffer = Buffer(
            address=address,
            host=host,
            size_bytes=size_bytes,
            label=label,
            free=lambda: self._free(address, memory, label),
        )
        return buffer

    def _free(self, address: int, memory: _Memory, label: str) -> None:
        where = place()
        with self.lock:
            if self._buffers.pop(address, None) is not memory:
                raise HazardError(f"free at {where}: '{label}' was freed before")
            self.live["buffer"] -= 1
            if self._dead is None:
                memory.accesses.check_write(self.known, label, "free", where)
            memory.data[:] = _FREED

    def _ask(self, buffer: Buffer, memory: _Memory, *, writes: bool) -> None:
        """Check an access of the host."""
        what, where = ("write by the host", place()) if writes else ("read by the host", place())
        with self.lock:
            if memory not in self._buffers.values():
                raise HazardError(f"{what} at {where}: '{buffer.label}' was freed")
            check = memory.accesses.check_write if writes else memory.accesses.check_read
            check(self.known, buffer.label, what, where)


class _Memory:
    def __init__(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        self.data = data
        self.accesses = Accesses()
