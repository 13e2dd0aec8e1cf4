"""A device without hardware: work runs late and in adversarial order, and every race is an error.

It fulfils `runtime.device.device.Device`, so that the runtime, and a user's own code around it,
can be driven through schedules that a real GPU shows once a month. What it finds does not depend on
the order that happened: see `_ordering`. The order is real nevertheless, so that wrong code also
gets wrong bytes.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from edgevision.errors import CudaError, HazardError
from edgevision.runtime.device.device import Capabilities, Event
from edgevision.runtime.device.memory import Buffer
from edgevision.testing._ordering import Access, Accesses, Clock, merge, place
from edgevision.testing._streams import (
    NOT_CAPTURABLE,
    Operation,
    SimulatedEvent,
    SimulatedStream,
)
from edgevision.testing._watched import plain, watched

Order: TypeAlias = "str | int"

_NEW, _FREED = 0xA5, 0xDD
_FIRST_ADDRESS = 0x7000_0000_0000
_ILLEGAL_ADDRESS = 700
_NO_CONTEXT = 201
_OUT_OF_MEMORY = 2
_LEGACY_STREAM = 1


class SimulatedDevice:
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
        self.capabilities = Capabilities(
            pinned=True,
            mapped=True,
            integrated=integrated,
            graphs=graphs,
            async_copies=True,
            priorities=True,
            reasons={} if graphs else {"graphs": "this simulated device was made without graphs"},
        )
        self.lock = threading.RLock()
        self.known: Clock = {}
        self.operations = 0
        self.copies: Counter[tuple[str, str]] = Counter()
        self.live: dict[str, int] = {"buffer": 0, "event": 0, "graph": 0, "stream": 0}
        self._order = order
        self._random = random.Random(order if isinstance(order, int) else 0)
        self._streams: list[SimulatedStream] = []
        self._legacy: SimulatedStream | None = None
        self._buffers: dict[int, _Memory] = {}
        self._memory_bytes = memory_bytes
        self._next_address = _FIRST_ADDRESS
        self._depth = threading.local()
        self._failures: dict[int, bool] = {}
        self._dead: CudaError | None = None
        self._moving = threading.Condition(self.lock)
        self._stalled = False

    # What a device does

    def active(self) -> AbstractContextManager[object]:
        """Return what makes the device usable on a thread inside `with`."""
        return _Active(self._depth)

    def stream(self, *, priority: int = 0) -> SimulatedStream:
        """Return a new stream."""
        self.check_active("stream")
        with self.lock:
            stream = SimulatedStream(self, len(self._streams) + 1)
            self._streams.append(stream)
            self.live["stream"] += 1
            return stream

    def foreign_stream(self, handle: int) -> SimulatedStream:
        """Return the stream with that handle, 1 for the legacy default stream, which is there.

        Closing what is returned closes the stream.
        """
        with self.lock:
            if handle == _LEGACY_STREAM:
                if self._legacy is None:
                    self._legacy = SimulatedStream(self, 0)
                    self._legacy.handle = _LEGACY_STREAM
                    self._streams.append(self._legacy)
                return self._legacy
            for stream in self._streams:
                if stream.handle == handle:
                    return stream
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
        return self._allocate(size_bytes, label, on_host=False)

    def allocate_host(self, size_bytes: int, *, label: str) -> Buffer:
        """Return pinned and mapped host memory, as an array that asks before it is used."""
        return self._allocate(size_bytes, label, on_host=True)

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""
        with self.lock:
            used = sum(memory.data.size for memory in self._buffers.values())
            return self._memory_bytes - used, self._memory_bytes

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

    # What its parts share

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
        stream: SimulatedStream,
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
        ready = [stream for stream in self._streams if stream.is_ready()]
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

    def _allocate(self, size_bytes: int, label: str, *, on_host: bool) -> Buffer:
        self.check_active("allocate")
        where = place()
        with self.lock:
            self.check_alive()
            if any(stream.capturing for stream in self._streams):
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
            memory = self._buffers[address] = _Memory(np.full(size_bytes, _NEW, np.uint8), where)
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


class _Active:
    """Counts how deep each thread is inside."""

    def __init__(self, depth: threading.local) -> None:
        self._depth = depth

    def __enter__(self) -> None:
        self._depth.value = getattr(self._depth, "value", 0) + 1

    def __exit__(self, *error: object) -> None:
        self._depth.value -= 1


class _Memory:
    def __init__(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]], made_at: str) -> None:
        self.data = plain(data)
        self.made_at = made_at
        self.accesses = Accesses()
