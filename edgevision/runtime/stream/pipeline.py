"""A pipeline: frames in at camera rate, answers out in order, late frames dropped by policy.

One frame's way: `submit` copies it into a free slot and, on a device with queues, launches it there
and then, on the caller's thread: no hand-over stands between a frame and the device. The pipeline's
one worker thread waits for the device, makes the answer and launches what was waiting. On a device
without queues the worker runs the frames itself. Slots are the only back-pressure: whatever waits,
waits in a slot, so nothing can grow. See docs/adr/0007.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import Generic, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import CallbackError, ClosedError, RunError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.sharing import SharedProgram
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.lending import PipelineInput
from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.stream.clocks import Clock, StampClock
from edgevision.runtime.stream.schedule import Counters, Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.worker import Codec, OnResult, Worker

T = TypeVar("T")
F = TypeVar("F")
_REOPENED = "the pipeline was reopened while this frame was made; take a new buffer for the next"


class Pipeline(Generic[F, T]):
    """Runs frames from any thread through one program; made by `Model.stream`.

    Args:
        program: what runs; without `shared` it stays the caller's and must outlive the pipeline.
        profiles: bounds of its dynamic inputs.
        codec: what frames and answers are.
        options: the policy.
        run_options: how each slot runs.
        on_result: called with each ticket that ran, in order, on the pipeline's thread. Frames that
            the policy dropped before they ran are told to their tickets only.
        clock: by which frames are stamped.
        shared: keeps the program open for as long as the pipeline runs it.
        owner: what must live as long as the pipeline, such as its model.

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
        on_result: OnResult[T] | None = None,
        clock: Clock = "perf_counter",
        shared: SharedProgram | None = None,
        owner: object = None,
    ) -> None:
        if on_result is not None and (
            not callable(on_result) or inspect.iscoroutinefunction(on_result)
        ):
            raise TypeError(
                f"on_result: got {on_result!r}, expected a plain function of a ticket; it is "
                "called on the pipeline's own thread, where nothing can be awaited"
            )
        self._clock = StampClock(clock)
        self._lifetime = Lifetime("the pipeline")
        self.options = options
        self.program = program
        self._profiles = profiles
        self._codec = codec
        self._run_options = run_options
        self._on_result = on_result
        self._shared = shared
        self._owner = owner
        queues = program.device.capabilities.async_copies
        self._check = FeedCheck(program.inputs, profiles, program.device)
        deadline_ms = options.deadline_ms
        self._deadline_ns = None if deadline_ms is None else int(deadline_ms * 1e6)
        # A signal's handler may call anything in the middle of anything.
        self._lock = threading.RLock()
        self._opening = threading.RLock()
        self._schedule: Schedule[T] = Schedule(options, depth=options.depth if queues else 1)
        self._half_open: Worker[T] | None = None
        self._worker = worker = self._new_worker()
        try:
            worker.open()
        except BaseException:
            self._lifetime.end()
            worker.end(drain=False)
            raise

    def submit(self, frame: F, *, stamp_ns: int | None = None, meta: object = None) -> Ticket[T]:
        """Take a frame; it is copied before the call returns, and may be used again.

        Args:
            frame: what the model takes, see `Model`.
            stamp_ns: when the frame was taken, by the pipeline's clock; now if not given.
            meta: anything that is to come out with the answer, as `Ticket.meta`.

        Raises:
            FrameError: the frame has the wrong dtype or shape.
            TypeError: the stamp is not an integer.
            ValueError: the stamp is of another clock or unit: far too old, or ahead.
            ClosedError: the pipeline is closed.
            CallbackError: a callback has raised since the last call. The frame was taken all the
                same: its ticket is the error's `ticket`.
            RunError: the engine failed before: says which frames were lost; see `reopen`.
            StalledError: the device has not answered for too long.
        """
        worker = self._worker
        if not self._lifetime.is_open or worker.failure is not None:
            self._usable()
        feeds = self._check(self._codec.feeds(frame))
        entry: Entry[T] = Entry(perf_counter_ns())
        stamp_ns = entry.start_ns if stamp_ns is None else self._clock.stamp_ns(stamp_ns)
        deadline_ns = None if self._deadline_ns is None else stamp_ns + self._deadline_ns
        while True:
            entry.ticket = Ticket(stamp_ns, deadline_ns, worker, meta)
            try:
                slot = worker.slots.take(entry) or self._wait(worker, entry)
                if slot is not None:
                    slot.fill(feeds)
                    worker.enter(entry)
            finally:
                entry.is_over = True
                if not entry.is_done:
                    worker.left += (entry,)
                    worker.wake(None)
                    worker.give_back(entry)
            if entry.is_done:
                break
            self._usable()  # it failed or was closed in the meantime, or it was reopened
            worker, entry = self._worker, Entry(entry.start_ns)
        if worker.callback_errors:
            self._raise_callback_error(entry.ticket)
        return entry.ticket

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
        worker = self._worker
        entry: Entry[T] = Entry(perf_counter_ns())

        def submit(stamp_ns: int | None, meta: object) -> Ticket[T]:
            stamp_ns = entry.start_ns if stamp_ns is None else self._clock.stamp_ns(stamp_ns)
            deadline_ns = None if self._deadline_ns is None else stamp_ns + self._deadline_ns
            buffer.end()
            entry.ticket = Ticket(stamp_ns, deadline_ns, worker, meta)
            worker.enter(entry)
            if not entry.is_done:
                self._usable()
                raise ClosedError(_REOPENED)
            if worker.callback_errors:
                self._raise_callback_error(entry.ticket)
            return entry.ticket

        try:
            slot = worker.slots.take(entry) or self._wait(worker, entry)
            if slot is None:
                raise ClosedError(_REOPENED)
            buffer = PipelineInput(slot, submit)
            entry.is_lent = True
            try:
                yield buffer
            finally:
                buffer.end()
        finally:
            entry.is_over = True
            if not entry.is_done:
                worker.left += (entry,)
                worker.wake(None)
                worker.give_back(entry)

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._lifetime.is_open

    def latest(self) -> Ticket[T] | None:
        """Return the ticket of the newest answer, with its age; None before the first.

        Never waits: a control loop asks at its own rate.

        Raises:
            ClosedError: this is a forked child.
        """
        self._lifetime.check_process()
        return self._worker.newest

    def counters(self) -> Counters:
        """Return what became of the frames so far.

        Raises:
            ClosedError: this is a forked child.
        """
        self._lifetime.check_process()
        with self._lock:
            return self._schedule.counters(perf_counter_ns())

    def check_progress(self) -> None:
        """Report a device that has not answered for `stall_ms`; returns at once.

        Raises:
            StalledError: says since when, and which frames it holds.
            ClosedError: this is a forked child.
        """
        self._lifetime.check_process()
        self._worker.check_progress()

    def reopen(self) -> None:
        """Make new slots after the engine failed, and go on.

        If several threads call it, one reopens and the others are told that it has not failed.

        Raises:
            RunError: the pipeline has not failed; or this is a callback, on the pipeline's own
                thread, or inside `with pipeline.input()`. The pipeline stays as it was.
            CudaError: the device is beyond help; restart the process.
        """
        self._lifetime.check()
        self._check_place("reopen()")
        if self.is_inside:
            raise RunError(
                "reopen() was called in a callback, on the thread that has to end first. Call it "
                "from the thread that submits; a flag or queue tells it to."
            )
        with self._opening:
            self._end_half_open()
            failed = self._worker
            if failed.failure is None:
                raise RunError("reopen() is for a pipeline that has failed; this one has not")
            failed.end(drain=False)
            try:
                failed.join()
            except RunError:
                self._lifetime.end()
                raise
            self._half_open = worker = self._new_worker()
            try:
                worker.open()
            except Exception:  # not Ctrl-C, after which it may be tried again
                self._lifetime.end()
                raise
            worker.callback_errors.extend(failed.callback_errors)
            worker.newest = failed.newest
            self._worker, self._half_open = worker, None
            if not self._lifetime.is_open:  # closed in the meantime
                worker.end(drain=False)
        self._lifetime.check()

    def close(self, *, drain: bool = True) -> None:
        """Finish the frames inside, or drop those that wait; then free everything.

        Safe to call twice and on any thread, and each call waits, but for one in a callback or in a
        signal's handler in the middle of `submit`: that asks for the end, which it stands in the
        way of, and returns.

        Raises:
            StalledError: the device does not answer; what it holds is abandoned, not freed.
            CudaError: something could not be freed.
            RunError: a callback raised and nobody has been told yet; or called inside this
                thread's own `with pipeline.input()`.
        """
        if self._lifetime.is_forked:
            return
        self._check_place("close()")
        self.ask_to_close(drain=drain)
        if self.is_inside:
            return
        with self._opening:  # what is being reopened is closed, too
            self._end_half_open()
            self._worker.end(drain=drain)
            worker = self._worker
        worker.join()
        if worker.callback_errors:
            self._raise_callback_error(None)

    def ask_to_close(self, *, drain: bool = False) -> None:
        """Take no more frames, and end once those inside are done; returns at once."""
        self._lifetime.end()
        self._worker.end(drain=drain)

    @property
    def is_inside(self) -> bool:
        """Whether the caller is called by the pipeline, or by a signal in the middle of a call."""
        if self._worker.is_this_thread:
            return True
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            names = frame.f_code.co_name, frame.f_globals.get("__name__")
            if names == ("submit", __name__) and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

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
        if lifetime is not None and lifetime.is_forgotten:
            lifetime.end()
            for worker in (getattr(self, "_worker", None), self._half_open):
                if worker is not None:
                    worker.forget()
            lifetime.warn()

    # On the thread of whoever submits

    def _usable(self) -> None:
        self._lifetime.check()
        failure = self._worker.failure
        if failure is not None:
            raise RunError(
                f"the engine failed: {failure} "
                f"Lost frames: {self._worker.failed_frames}. Call reopen() to go on."
            ) from failure

    def _wait(self, worker: Worker[T], entry: Entry[T]) -> Slot | None:
        """Return a slot to fill, by the policy, once it is this call's turn; None if reopened."""
        while True:
            if self.options.policy != "block":
                worker.make_place(entry)
            slot = worker.slots.wait(entry)
            if slot is not None:
                return slot
            worker.check_progress()
            self._usable()
            if worker is not self._worker:
                return None

    def _end_half_open(self) -> None:
        """End the worker that an interrupted `reopen` has left; one schedule serves one worker."""
        if self._half_open is not None:
            self._half_open.end(drain=False)
            self._half_open.join()
            self._half_open = None

    def _check_place(self, what: str) -> None:
        if self._worker.slots.is_held_here():
            raise RunError(
                f"{what} was called inside `with pipeline.input()` on the same thread, which holds "
                f"what {what} waits for (or in a signal's handler, in the middle of `submit`). "
                "Leave the block first."
            )

    def _raise_callback_error(self, ticket: Ticket[T] | None) -> None:
        errors = self._worker.callback_errors
        try:
            error = errors.popleft()
        except IndexError:
            return  # somebody else is being told
        taken = "" if ticket is None else f"; frame {ticket.sequence} was taken all the same"
        raise CallbackError(
            f"a callback of the pipeline raised {error!r}{taken}", ticket=ticket
        ) from error

    def _new_worker(self) -> Worker[T]:
        owner = weakref.ref(self)

        def on_result() -> OnResult[T] | None:
            pipeline = owner()
            return None if pipeline is None else pipeline._on_result

        return Worker(
            self.program,
            self._profiles,
            self.options,
            self._run_options,
            schedule=self._schedule,
            lock=self._lock,
            codec=self._codec,
            on_result=None if self._on_result is None else on_result,
            lifetime=self._lifetime,
            shared=self._shared,
        )
