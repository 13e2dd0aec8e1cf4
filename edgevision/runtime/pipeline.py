"""A pipeline: frames in at camera rate, answers out in order, late frames dropped by policy.

One frame's way: `submit` copies it into a free slot and, on a device with queues, launches it there
and then, on the caller's thread: no hand-over stands between a frame and the device. The pipeline's
one worker thread waits for the device, makes the answer and launches what was waiting. On a device
without queues the worker runs the frames itself. Slots are the only back-pressure: whatever waits,
waits in a slot, so nothing can grow. See docs/adr/0007.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import perf_counter_ns
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from edgevision.errors import (
    ClosedError,
    FrameDroppedError,
    FrameLostError,
    RunError,
    StalledError,
)
from edgevision.runtime.feeds import FeedCheck
from edgevision.runtime.lending import PipelineInput
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.memory import Array
from edgevision.runtime.options import RunOptions
from edgevision.runtime.program import Program
from edgevision.runtime.schedule import (
    CLOSED,
    HOPELESS,
    REPLACED,
    Counters,
    Entry,
    Schedule,
    StreamOptions,
)
from edgevision.runtime.slot import Slot
from edgevision.runtime.slots import Slots
from edgevision.runtime.ticket import Ticket
from edgevision.runtime.timing import Timings, timings
from edgevision.runtime.watchdog import unwatch, watch
from edgevision.tensors import Profiles

T = TypeVar("T")
F = TypeVar("F")
T_co = TypeVar("T_co", covariant=True)
F_contra = TypeVar("F_contra", contravariant=True)
_POLL_S = 0.25


class Codec(Protocol[F_contra, T_co]):
    """Turns a frame into feeds, and outputs, which are its own, into an answer."""

    def feeds(self, frame: F_contra) -> Mapping[str, object]:
        """Return the frame as the program's inputs; FrameError if it is none."""

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> T_co:
        """Return the answer."""


_Settled = list[tuple[Ticket[T], BaseException]]
"""Tickets that have no answer and why; told after the lock is released, for they call back."""


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
        self._lifetime = Lifetime("the pipeline")
        self.options = options
        self.program = program
        self._profiles = profiles
        self._codec = codec
        self._run_options = run_options
        self._on_result = on_result
        self._queues = program.device.capabilities.async_copies
        self._active = program.device.active()
        self._check = FeedCheck(program.inputs, profiles, on_device=self._queues)
        self._lock = threading.Lock()
        self._depth = options.depth if self._queues else 1
        self._schedule: Schedule[T] = Schedule(options, depth=self._depth)
        self._lenders: set[int] = set()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._failed_frames: list[int] = []
        self._callback_error: BaseException | None = None
        self._release_error: RunError | None = None
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
        if not self._lifetime.is_open or self._failure or self._callback_error:
            self._usable()
        feeds = self._check(self._codec.feeds(frame))
        start_ns = perf_counter_ns()
        slot = self._take()
        try:
            slot.fill(feeds)
        except BaseException:
            self._free.put(slot)
            raise
        return self._enter(slot, start_ns, stamp_ns)

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
        with self._lock:
            age_ms = self._stalled_ms()
            frames = [entry.ticket.sequence for entry in self._schedule.running]
        if age_ms:
            raise StalledError(
                f"{self.program.device.name} has not answered for {age_ms:.0f} ms (limit "
                f"{self.options.stall_ms:.0f} ms); it holds frames {frames}. Read the driver's "
                "log; if a run may take that long, give a larger stall_ms."
            )

    def wake_stalled(self) -> None:
        """Wake all who wait for a device that does not answer; for the watchdog."""
        with self._lock:
            if not self._stalled_ms():
                return
            tickets = [entry.ticket for entry in self._schedule.inside()]
        for ticket in tickets:
            ticket.wake()

    def reopen(self) -> None:
        """Make new slots after the engine failed, and go on.

        Raises:
            RunError: the pipeline has not failed.
            CudaError: the device is beyond help; restart the process.
        """
        self._lifetime.check()
        if self._failure is None:
            raise RunError("reopen() is for a pipeline that has failed; this one has not")
        self._join()
        try:
            self._slots.close()
        except BaseException:
            self._lifetime.end()
            raise
        self._failure, self._failed_frames = None, []
        self._open()

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
        settled: _Settled[T] = []
        with self._lock:
            self._is_closing = True
            while not drain and (entry := self._schedule.drop_oldest()) is not None:
                self._drop(entry, CLOSED, settled)
            if self._schedule.is_empty:
                self._jobs.put(None)
        self._free.put(None)  # wakes those who wait for a slot
        self._tell(settled)
        if threading.current_thread() is not self._worker:
            self._join()
            self._slots.close()  # where the worker has not: it had failed
            if self._release_error is not None:
                raise self._release_error
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
        if self._failure is not None:
            raise RunError(
                f"the engine failed: {self._failure} Lost frames: {self._failed_frames}. Call "
                "reopen() to go on."
            ) from self._failure
        if self._callback_error is not None:
            self._raise_callback_error()

    def _take(self) -> Slot:
        """Return a slot to fill, by the policy."""
        free = self._free
        while True:
            try:
                slot = free.get_nowait()
            except Empty:
                if self.options.policy != "block":
                    self._make_place()
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
            raise ClosedError("the pipeline was closed while this frame waited for a slot")

    def _make_place(self) -> None:
        """Drop the frame that has waited longest, so that its slot is free."""
        settled: _Settled[T] = []
        with self._lock:
            entry = self._schedule.drop_oldest()
            if entry is not None:
                self._drop(entry, REPLACED, settled)
        self._tell(settled)

    def _enter(self, slot: Slot, start_ns: int, stamp_ns: int | None) -> Ticket[T]:
        """Queue a filled slot, and launch it if the device has room."""
        stamp_ns = start_ns if stamp_ns is None else stamp_ns
        deadline_ms = self.options.deadline_ms
        deadline_ns = None if deadline_ms is None else stamp_ns + int(deadline_ms * 1e6)
        ticket: Ticket[T] = Ticket(stamp_ns, deadline_ns, self)
        entry = Entry(slot, ticket, start_ns, perf_counter_ns())
        settled: _Settled[T] = []
        with self._lock:
            if self._is_closing or self._failure is not None:
                self._free.put(slot)
            else:
                replaced = self._schedule.enter(entry)
                if replaced is not None:
                    self._drop(replaced, REPLACED, settled)
                with self._active:
                    self._launch_waiting(settled)
        if settled:
            self._tell(settled)
        if ticket.sequence < 0:
            self._usable()
            raise ClosedError("the pipeline was closed while this frame was copied")
        return ticket

    # With the lock held

    def _stalled_ms(self) -> float:
        """Return for how long the device has not answered; 0 while that is no longer than usual."""
        running = self._schedule.running
        age_ms = (perf_counter_ns() - running[0].launched_ns) / 1e6 if running else 0.0
        return age_ms if age_ms >= self.options.stall_ms else 0.0

    def _launch_waiting(self, settled: _Settled[T]) -> None:
        """Launch what waits while the device has room."""
        schedule = self._schedule
        while schedule.waiting and (started := schedule.start(perf_counter_ns())) is not None:
            entry, runs = started
            if not runs:
                self._drop(entry, HOPELESS, settled)
                continue
            if self._queues:
                try:
                    entry.slot.launch()
                except BaseException as error:
                    self._fail(error, settled)
                    if not isinstance(error, Exception):
                        raise
                    return
            self._jobs.put(entry)

    def _drop(self, entry: Entry[T], why: str, settled: _Settled[T]) -> None:
        """Free the slot of a frame that the schedule gave up."""
        settled.append((entry.ticket, FrameDroppedError(f"frame {entry.ticket.sequence}: {why}")))
        self._free.put(entry.slot)

    def _fail(self, error: BaseException, settled: _Settled[T]) -> None:
        """Give up all frames inside; `reopen` or `close` cleans up."""
        if self._failure is not None:
            return
        entries = self._schedule.abandon()
        self._failed_frames = [entry.ticket.sequence for entry in entries]
        self._failure = error
        for entry in entries:
            lost = FrameLostError(f"frame {entry.ticket.sequence}: the engine failed: {error}")
            lost.__cause__ = error
            settled.append((entry.ticket, lost))
            self._free.put(entry.slot)
        self._jobs.put(None)
        self._free.put(None)

    # On the pipeline's thread

    def _work(self) -> None:
        watch(self)
        with self._active:
            while (entry := self._jobs.get()) is not None:
                if self._failure is None:
                    self._finish(entry)
        unwatch(self)
        if self._is_closing:
            try:
                self._slots.close()
            except RunError as error:
                self._release_error = error

    def _finish(self, entry: Entry[T]) -> None:
        """Wait for a frame, make its answer, pass its slot on, and tell."""
        slot, ticket = entry.slot, entry.ticket
        settled: _Settled[T] = []
        answer, error = None, None
        try:
            if not self._queues:
                slot.launch()
            slot.wait()
            computed_ns = perf_counter_ns()
            outputs = slot.outputs()
            times = timings(
                slot,
                entry.filled_ns - entry.start_ns,
                computed_ns - entry.launched_ns,
                perf_counter_ns() - computed_ns,
                wait_ns=entry.launched_ns - entry.filled_ns,
            )
        except BaseException as failure:
            with self._lock:
                self._fail(failure, settled)
            self._tell(settled)
            return
        try:
            answer = self._codec.decode(outputs, times)
        except Exception as failure:  # the frame's own error: told by its ticket
            error = failure
        done_ns = perf_counter_ns()
        with self._lock:
            if self._failure is not None:
                return  # it was given up for lost in the meantime
            if not self._schedule.finish(computed_ns, done_ns):
                answer, error = None, FrameDroppedError(f"frame {ticket.sequence}: it came late")
            self._free.put(slot)
            if self._schedule.waiting:
                self._launch_waiting(settled)
            if self._is_closing and self._schedule.is_empty:
                self._jobs.put(None)
        try:
            ticket.resolve(answer, error, done_ns)
            if self._on_result is not None:
                self._on_result(ticket)
        except BaseException as failure:
            self._callback_error = failure
        if settled:
            self._tell(settled)

    def _tell(self, settled: _Settled[T]) -> None:
        """Resolve tickets that have no answer."""
        for ticket, error in settled:
            try:
                ticket.resolve(None, error, perf_counter_ns())
            except Exception as failure:
                self._callback_error = failure

    def _raise_callback_error(self) -> None:
        error, self._callback_error = self._callback_error, None
        if error is not None:
            raise RunError(f"a callback of the pipeline raised {error!r}") from error

    # Opening and closing

    def _open(self) -> None:
        """Make slots and start the worker."""
        self._jobs: SimpleQueue[Entry[T] | None] = SimpleQueue()
        try:
            self._slots = Slots(
                self.program,
                self._profiles,
                self._run_options,
                count=self.options.slots,
                share_scratch=self._depth == 1,
                warm_up=True,
            )
        except BaseException:
            self._lifetime.end()
            raise
        self._free = self._slots.free
        self._worker = threading.Thread(target=self._work, name="edgevision pipeline", daemon=True)
        self._worker.start()

    def _join(self) -> None:
        """Wait for the worker, as long as the device makes progress."""
        end_ns = perf_counter_ns() + int(self.options.stall_ms * 1e6)
        while self._worker.is_alive():
            self._worker.join(timeout=_POLL_S)
            self.check_progress()
            if self._failure is not None and perf_counter_ns() > end_ns:
                raise StalledError(
                    f"{self.program.device.name} does not answer after it failed: {self._failure} "
                    "Restart the process."
                )
