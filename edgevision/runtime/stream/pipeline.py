"""A pipeline: frames in at camera rate, answers out in order, late frames dropped by policy.

One frame's way: `submit` copies it into a free slot and, on a device with queues, launches it there
and then, on the caller's thread: no hand-over stands between a frame and the device. The pipeline's
one worker thread waits for the device, makes the answer and launches what was waiting. On a device
without queues the worker runs the frames itself. Slots are the only back-pressure: whatever waits,
waits in a slot, so nothing can grow. See docs/adr/0007.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from time import perf_counter_ns
from types import TracebackType
from typing import Generic, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import ClosedError, RunError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.lending import PipelineInput
from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.stream.schedule import Counters, Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.worker import Codec, Worker

T = TypeVar("T")
F = TypeVar("F")
_POLL_S = 0.25


class Pipeline(Generic[F, T]):
    """Runs frames from any thread through one program; made by `Model.stream`.

    Args:
        program: what runs; it stays the caller's and must outlive the pipeline.
        profiles: bounds of its dynamic inputs.
        codec: what frames and answers are.
        options: the policy.
        run_options: how each slot runs.
        on_result: called with each ticket that ran, in order, on the pipeline's thread.

    Example:
        >>> with model.stream(policy="latest", deadline_ms=50) as pipeline:  # doctest: +SKIP
        ...     for frame, stamp_ns in camera:
        ...         ticket = pipeline.submit(frame, stamp_ns=stamp_ns)
    """

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        codec: Codec[F, T],
        options: StreamOptions,
        *,
        run_options: RunOptions,
        on_result: Callable[[Ticket[T]], None] | None = None,
    ) -> None:
        if on_result is not None and (
            not callable(on_result) or inspect.iscoroutinefunction(on_result)
        ):
            raise TypeError(
                f"on_result: got {on_result!r}, expected a plain function of a ticket; it is "
                "called on the pipeline's own thread, where nothing can be awaited"
            )
        self._lifetime = Lifetime("the pipeline")
        self.options = options
        self.program = program
        self._profiles = profiles
        self._codec = codec
        self._run_options = run_options
        self._on_result = on_result
        queues = program.device.capabilities.async_copies
        self._check = FeedCheck(program.inputs, profiles, program.device)
        self._lock = threading.Lock()
        self._schedule: Schedule[T] = Schedule(options, depth=options.depth if queues else 1)
        self._lenders: set[int] = set()
        self._users: set[object] = set()
        self._open()

    def submit(self, frame: F, *, stamp_ns: int | None = None) -> Ticket[T]:
        """Take a frame; it is copied before the call returns, and may be used again.

        Args:
            frame: what the model takes, see `Model`.
            stamp_ns: when the frame was taken, by `time.perf_counter_ns`; now if not given.

        Raises:
            FrameError: the frame has the wrong dtype or shape.
            ClosedError: the pipeline is closed.
            RunError: the engine failed before: says which frames were lost; see `reopen`.
            StalledError: the device has not answered for too long.
        """
        if not self._lifetime.is_open or self._worker.failure or self._worker.callback_error:
            self._usable()
        feeds = self._check(self._codec.feeds(frame))
        start_ns = perf_counter_ns()
        mark = object()
        try:
            self._users.add(mark)
            slot = self._take()
            try:
                slot.fill(feeds)
            except BaseException:
                self._free.put(slot)
                raise
            return self._enter(slot, start_ns, stamp_ns)
        finally:
            self._users.discard(mark)

    @contextmanager
    def input(self) -> Iterator[PipelineInput[T]]:
        """Lend a slot's input memory, for a camera or decoder to write the frame in place.

        Raises:
            ClosedError: the pipeline is closed.

        Example:
            >>> with pipeline.input() as buffer:  # doctest: +SKIP
            ...     camera.read_into(buffer["frame"])
            ...     ticket = buffer.submit()
        """
        self._usable()
        mark = object()
        try:
            self._users.add(mark)
            slot = self._take()
            try:
                buffer = PipelineInput(slot, self._enter)
            except BaseException:
                self._free.put(slot)
                raise
            self._lenders.add(threading.get_ident())
            try:
                yield buffer
            finally:
                self._lenders.discard(threading.get_ident())
                if (unused := buffer.end()) is not None:
                    self._free.put(unused)
        finally:
            self._users.discard(mark)

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._lifetime.is_open

    def counters(self) -> Counters:
        """Return what became of the frames so far."""
        with self._lock:
            return self._schedule.counters(perf_counter_ns())

    def check_progress(self) -> None:
        """Report a device that has not answered for `stall_ms`; returns at once.

        Raises:
            StalledError: says since when, and which frames it holds.
        """
        self._worker.check_progress()

    def reopen(self) -> None:
        """Make new slots after the engine failed, and go on.

        Raises:
            RunError: the pipeline has not failed.
            CudaError: the device is beyond help; restart the process.
        """
        self._lifetime.check()
        if self._worker.failure is None:
            raise RunError("reopen() is for a pipeline that has failed; this one has not")
        failed = self._worker
        try:
            failed.close()
        except BaseException:
            self._lifetime.end()
            raise
        self._open()
        self._worker.callback_error = failed.callback_error

    def close(self, *, drain: bool = True) -> None:
        """Finish the frames inside, or drop those that wait; then free everything.

        Safe to call twice, on any thread, and from `on_result`, where it only asks for the end.

        Raises:
            StalledError: the device does not answer; what it holds is abandoned, not freed.
            CudaError: something could not be freed.
            RunError: `on_result` raised and nobody has been told yet; or called inside this
                thread's own `with pipeline.input()`.
        """
        if threading.get_ident() in self._lenders:
            raise RunError(
                "close() was called inside `with pipeline.input()` on the same thread, which holds "
                "what close() waits for. Leave the block first."
            )
        if not self._lifetime.end():
            return
        self._worker.end(drain=drain)
        if not self._worker.is_this_thread:
            self._worker.close()
            self._raise_callback_error()

    def __enter__(self) -> Pipeline[F, T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close(drain=error is None)
        except RunError:
            if error is None:  # never mask what the user's block raised
                raise

    def __del__(self) -> None:
        lifetime = getattr(self, "_lifetime", None)
        if lifetime is not None:
            lifetime.warn_if_open()

    # On the thread of whoever submits

    def _usable(self) -> None:
        self._lifetime.check()
        if self._worker.failure is not None:
            raise RunError(
                f"the engine failed: {self._worker.failure} "
                f"Lost frames: {self._worker.failed_frames}. Call reopen() to go on."
            ) from self._worker.failure
        if self._worker.callback_error is not None:
            self._raise_callback_error()

    def _take(self) -> Slot:
        """Return a slot to fill, by the policy."""
        free = self._free
        while True:
            try:
                slot = free.get_nowait()
            except Empty:
                if self.options.policy != "block":
                    self._worker.make_place()
                try:
                    slot = free.get(timeout=_POLL_S)
                except Empty:
                    self.check_progress()
                    self._usable()
                    continue
            if slot is not None:
                return slot
            free.put(None)  # for the next who waits
            self._usable()
            free = self._free  # it was reopened in the meantime

    def _enter(self, slot: Slot, start_ns: int, stamp_ns: int | None) -> Ticket[T]:
        """Queue a filled slot, and launch it if the device has room."""
        stamp_ns = start_ns if stamp_ns is None else stamp_ns
        deadline_ms = self.options.deadline_ms
        deadline_ns = None if deadline_ms is None else stamp_ns + int(deadline_ms * 1e6)
        worker = self._worker
        ticket: Ticket[T] = Ticket(stamp_ns, deadline_ns, worker)
        worker.enter(Entry(slot, ticket, start_ns, perf_counter_ns()))
        if ticket.sequence < 0:
            self._usable()
            raise ClosedError("the pipeline was closed while this frame was copied")
        return ticket

    def _raise_callback_error(self) -> None:
        error, self._worker.callback_error = self._worker.callback_error, None
        if error is not None:
            raise RunError(f"a callback of the pipeline raised {error!r}") from error

    def _open(self) -> None:
        try:
            self._worker = Worker(
                self.program,
                self._profiles,
                self.options,
                self._run_options,
                schedule=self._schedule,
                lock=self._lock,
                codec=self._codec,
                on_result=self._on_result,
                is_used=lambda: bool(self._users),
            )
        except BaseException:
            self._lifetime.end()
            raise
        self._free = self._worker.free
