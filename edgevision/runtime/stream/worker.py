"""A pipeline's worker: waits for the device, answers in order, finishes what others left behind.

One worker is one opening of a pipeline, with its slots and its thread; after an engine failed it is
done for, and `Pipeline.reopen` makes another. On a device with queues frames are launched by
whoever submits them and, when one was waiting, here; without queues they run here.

Signals reach the main thread only, never this one. So the thread makes the slots and frees them,
and whoever submits may be interrupted anywhere: its entry then says that its call is over, and what
it left half done is done here. No lock is held while a frame is launched or a callback runs: those
may take any time, and others look on meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import FrameDroppedError, FrameLostError, RunError, StalledError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.leaving import end_at_exit
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.sharing import SharedProgram
from edgevision.runtime.slots.slots import Slots
from edgevision.runtime.stream.schedule import CLOSED, LOST, Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.watchdog import unwatch, watch
from edgevision.runtime.telling import Telling
from edgevision.tasks.timings import Timings, timings

T = TypeVar("T")
F = TypeVar("F")
T_co = TypeVar("T_co", covariant=True)
F_contra = TypeVar("F_contra", contravariant=True)
OnResult = Callable[[Ticket[T]], None]
_POLL_S = 0.25


class Codec(Protocol[F_contra, T_co]):
    """Turns a frame into feeds, and outputs, which are its own, into an answer."""

    def feeds(self, frame: F_contra) -> Mapping[str, object]:
        """Return the frame as the program's inputs; FrameError if it is none."""

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> T_co:
        """Return the answer."""


class Worker(Generic[T]):
    """Runs the frames of one schedule.

    Attributes:
        lifetime: the pipeline's.
        stall_ms: after that time a device that has not answered is reported.
        slots: its slots; made by `open`.
        left: calls that were interrupted; what they have not done is done here. Whoever adds one
            calls `wake(None)` next, so that another Ctrl-C comes after both.
        failure: what ended it before its time.
        failed_frames: the numbers of the frames that were lost with it.
        callback_errors: what callbacks raised and nobody has been told of.
        newest: the ticket that was answered last.
    """

    slots: Slots

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        options: StreamOptions,
        run_options: RunOptions,
        *,
        schedule: Schedule[T],
        lock: AbstractContextManager[bool],
        codec: Codec[F, T],
        on_result: Callable[[], OnResult[T] | None] | None,
        lifetime: Lifetime,
        shared: SharedProgram | None,
    ) -> None:
        """Prepare it; `lock` guards `schedule` for as long as a pipeline lives.

        `on_result` gives the callback for as long as the pipeline is there, which this must not
        keep alive.
        """
        self.failure: BaseException | None = None
        self.failed_frames: list[int] = []
        self.newest: Ticket[T] | None = None
        self._slots: Slots | None = None
        self._program = program
        self._profiles = profiles
        self._options = options
        self._run_options = run_options
        self.lifetime = lifetime
        self._shared = shared
        self._device = program.device
        self._active = program.device.active()
        self._queues = program.device.capabilities.async_copies
        self.stall_ms = options.stall_ms
        self._schedule = schedule
        self._lock = lock
        self._decode = codec.decode
        self._on_result = on_result
        self._has_begun = self._is_closing = self._is_freeing = False
        self._is_forgotten = False
        self._waits_since_ns = 0
        self._telling = Telling(program.device.name)
        self.callback_errors = self._telling.callback_errors
        self._opening_error: BaseException | None = None
        self._release_error: RunError | None = None
        self.left: deque[Entry[T]] = deque()
        self._calls: SimpleQueue[Entry[T] | None] = SimpleQueue()
        self.wake = self._calls.put
        self._own: Entry[T] = Entry()
        self._own.is_over = True  # nothing of its own is half done when it looks
        self._ready = threading.Event()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="edgevision pipeline", daemon=True)

    def open(self) -> None:
        """Start the thread, and wait until it has made the slots.

        Raises:
            RunError: no thread can be started, or a slot cannot be made.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise _no_thread(error) from error
        self._ready.wait()
        if self._opening_error is not None:
            self._has_ended.wait()
            self._thread.join()
            raise self._opening_error

    # For whoever submits

    def enter(self, entry: Entry[T]) -> None:
        """Queue a filled slot, and launch it if the device has room.

        The entry is not in the schedule afterwards if the worker failed or is closing.
        """
        schedule = self._schedule
        entry.filled_ns = perf_counter_ns()
        with self._lock:
            if self._is_closing or self.failure is not None:
                return
            schedule.enter(entry)
            started = schedule.start(entry.filled_ns, entry)
        if started is not None:
            if self._queues:
                with self._active:
                    self._launch(started, entry)
            self.wake(started)
        if entry.ended:
            self._settle(entry)
        entry.is_done = True

    def make_place(self, entry: Entry[T]) -> None:
        """Drop the frame that has waited longest, so that its slot is free for `entry`."""
        with self._lock:
            self._schedule.drop_oldest(entry)
        self._settle(entry)

    def give_back(self, call: Entry[T]) -> None:
        """Free the slots that an interrupted call holds or has taken from others.

        The worker does so, too, but may be waiting for a device that is stuck.
        """
        if not call.is_entered:
            self.slots.give(call)
        for entry in (*call.ended, call.launches or call):
            if entry.fate and not (self._queues and entry.is_launching):
                self.slots.give(entry)

    def end(self, *, drain: bool) -> None:
        """Finish the frames inside, or drop those that wait, and end; returns at once."""
        call: Entry[T] = Entry()
        try:
            with self._lock:
                self._is_closing = True
                while not drain and self._schedule.drop_oldest(call, CLOSED) is not None:
                    pass
            self._settle(call)
        finally:
            call.is_over = True
            self.left += (call,)
            self.wake(None)
        if self._slots is not None:
            self._slots.end()  # wakes those who wait for a slot

    def forget(self) -> None:
        """Drop what waits and end, for a destructor: it may run in the middle of anything."""
        self._is_forgotten = True
        self.wake(None)

    def join(self) -> None:
        """Wait for the thread, which frees the slots, as long as the device makes progress.

        Call `end` before.

        Raises:
            StalledError: the device does not answer; what it holds is abandoned, not freed.
            CudaError: something could not be freed.
        """
        if self._is_closing and not self._has_begun:
            return  # its opening was interrupted, and the thread makes nothing any more
        end_ns = perf_counter_ns() + int(self.stall_ms * 1e6)
        while not self._has_ended.wait(timeout=_POLL_S):
            self.check_progress()
            if self._is_freeing and self.failure is not None and perf_counter_ns() > end_ns:
                raise StalledError(
                    f"{self._device.name} does not answer after it failed: {self.failure} "
                    "Restart the process."
                )
        # Only now: CPython takes a thread for dead whose join() was interrupted.
        self._thread.join()
        error, self._release_error = self._release_error, None
        if error is not None:
            raise error

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the thread's end, at most so long; returns whether it came."""
        return self._has_ended.wait(timeout_s)

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller runs on the worker's thread, as callbacks do."""
        return threading.current_thread() is self._thread

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
                f"{self._device.name} has not answered for {age_ms:.0f} ms (limit "
                f"{self.stall_ms:.0f} ms); it holds frames {frames}. Read the driver's "
                "log; if a run may take that long, give a larger stall_ms."
            )

    def look(self) -> None:
        """Wake all who wait for a device that does not answer; for the watchdog."""
        with self._lock:
            age_ms = self._stalled_ms()
            tickets = [entry.ticket for entry in self._schedule.inside()] if age_ms else []
            counters = self._schedule.counters(perf_counter_ns())
        self._telling.stalled(age_ms)
        if self._telling.are_drops_due():
            self._telling.drops(counters)
        for ticket in tickets:
            ticket.wake()

    # With the lock held

    def _stalled_ms(self) -> float:
        """Return for how long the device has not answered; 0 while that is no longer than usual.

        It has to answer to this thread once that waits, and before that to who launches.
        """
        running = self._schedule.running
        if not running:
            return 0.0
        is_launching = self._queues and not running[0].is_queued
        since_ns = running[0].launched_ns if is_launching else self._waits_since_ns
        age_ms = (perf_counter_ns() - since_ns) / 1e6 if since_ns else 0.0
        return age_ms if age_ms >= self.stall_ms else 0.0

    # On any thread, without the lock

    def _launch(self, entry: Entry[T], by: Entry[T]) -> None:
        """Queue a started frame; the device is active."""
        slot = entry.slot
        try:
            if slot is not None:
                slot.launch()
            entry.is_queued = True
        except Exception as error:
            entry.is_queued = True
            self._fail(error, by)
        entry.by = by.launches = None
        if entry.fate:  # it was given up meanwhile, by somebody who left it its slot
            self.slots.give(entry)

    def _fail(self, error: BaseException, by: Entry[T]) -> None:
        """Give up all frames inside; `reopen` or `close` cleans up."""
        with self._lock:
            if self.failure is None:
                inside = self._schedule.inside()
                self.failed_frames = [entry.ticket.sequence for entry in inside]
                self.failure = error
            self._schedule.abandon(by)
        self.slots.end()
        self._telling.failed(error, self.failed_frames)
        self._settle(by)

    def _settle(self, by: Entry[T]) -> None:
        """Free the slots of frames that `by` took out, and tell their tickets."""
        interrupted: BaseException | None = None
        while by.ended:
            entry = by.ended[0]
            if not (self._queues and entry.is_launching):
                self.slots.give(entry)
            for error in entry.ticket.resolve(None, self._why(entry), perf_counter_ns()):
                if isinstance(error, KeyboardInterrupt) and _is_main_thread():
                    interrupted = error  # the user's, who happened to press it in a callback
                else:
                    self._telling.callback_raised(error, entry.ticket)
            by.ended = by.ended[1:]
        if interrupted is not None:
            raise interrupted

    def _why(self, entry: Entry[T]) -> BaseException:
        """Return the error of a frame that was taken out."""
        if entry.fate != LOST:
            return FrameDroppedError(f"frame {entry.ticket.sequence}: {entry.fate}")
        error = FrameLostError(f"frame {entry.ticket.sequence}: {LOST}: {self.failure}")
        error.__cause__ = self.failure
        return error

    # On the worker's thread

    def _work(self) -> None:
        with self._lock:
            self._has_begun = not self._is_closing
        if not self._has_begun:
            return
        end_at_exit(self)
        try:
            if self._shared is not None:
                self._shared.join(self)
            try:
                watch(self)
            except RuntimeError as error:
                raise _no_thread(error) from error
            self.slots = self._slots = Slots(
                self._program,
                self._profiles,
                self._run_options,
                count=self._options.slots,
                share_scratch=self._schedule.depth == 1,
                warm_up=True,
            )
            self._measure()
        except BaseException as error:
            self._opening_error = error
            self._free()
            self._ready.set()
            return
        self._ready.set()
        while not (self._is_closing and self._is_done()):
            try:
                self._serve()
            except BaseException as error:  # a fault of ours: nobody may wait for ever
                with suppress(Exception):
                    self._fail(error, self._own)
                if self._is_closing:
                    break
        self._free()

    def _serve(self) -> None:
        """Answer frames until the end."""
        running, waiting = self._schedule.running, self._schedule.waiting
        with self._active:
            while not (self._is_closing and self._is_done()):
                entry = self._calls.get()
                if self.left or self._is_forgotten or self.failure is not None:
                    self._finish_what_is_left()
                if not (running and running[0] is entry and not waiting):
                    entry = self._next()
                while entry is not None:
                    entry = self._finish(entry)

    def _measure(self) -> None:
        """Time a run, so that the first frames' chances are known."""
        if self._options.on_late == "drop" and not any(s.is_dynamic for s in self._program.inputs):
            start_ns = perf_counter_ns()
            self.slots.all[-1].run()
            self._schedule.expect(perf_counter_ns() - start_ns)

    def _is_done(self) -> bool:
        with self._lock:
            return self._schedule.is_empty and not self.left

    def _finish_what_is_left(self) -> None:
        """Do what interrupted calls have not done, and what destructors cannot do."""
        while self.left:
            call = self.left[0]
            self.give_back(call)
            self._settle(call)
            self.left.popleft()
        if self._is_forgotten and not self._is_closing:
            self.end(drain=False)
        if self.failure is not None and not self._schedule.is_empty:
            self._fail(self.failure, self._own)

    def _next(self) -> Entry[T] | None:
        """Return the frame to wait for; None if none is on the device yet."""
        schedule = self._schedule
        with self._lock:
            started = None
            if schedule.waiting and self.failure is None:  # a call was interrupted in between
                started = schedule.start(perf_counter_ns(), self._own)
        if started is not None and self._queues:
            self._launch(started, self._own)
        if self._own.ended:
            self._settle(self._own)
        with self._lock:
            entry = schedule.running[0] if schedule.running else None
            if entry is None or (self._queues and not entry.is_queued and entry.is_launching):
                return None
            return entry

    def _finish(self, entry: Entry[T]) -> Entry[T] | None:
        """Wait for a frame, make its answer, pass its slot on, and tell; return the next."""
        slot, ticket, schedule = entry.slot, entry.ticket, self._schedule
        if slot is None:
            return None  # it was given up for lost in the meantime
        answer, error = None, None
        try:
            self._waits_since_ns = perf_counter_ns()
            if not entry.is_queued:
                entry.launched_ns = self._waits_since_ns
                slot.launch()
                entry.is_queued = True
            slot.wait()
            computed_ns = perf_counter_ns()
            self._waits_since_ns = 0
            outputs = slot.outputs()
            times = timings(
                slot,
                entry.filled_ns - entry.start_ns,
                computed_ns - entry.launched_ns,
                perf_counter_ns() - computed_ns,
                wait_ns=entry.launched_ns - entry.filled_ns,
            )
        except BaseException as failure:
            self._waits_since_ns = 0
            self._fail(_without_this_frame(failure), self._own)
            return None
        try:
            answer = self._decode(outputs, times)
        except BaseException as failure:  # the frame's own error: told by its ticket
            error = _without_this_frame(failure)
        done_ns = perf_counter_ns()
        with self._lock:
            if self.failure is not None:
                return None  # it was given up for lost in the meantime
            if not schedule.finish(computed_ns, done_ns):
                answer, error = None, FrameDroppedError(f"frame {ticket.sequence}: it came late")
            elif error is None:
                self.newest = ticket
            started = schedule.start(done_ns, self._own) if schedule.waiting else None
        self.slots.give(entry)
        if started is not None and self._queues:
            self._launch(started, self._own)
        errors = ticket.resolve(answer, error, done_ns)
        if self._on_result is not None:
            try:
                callback = self._on_result()
                if callback is not None:
                    callback(ticket)
            except BaseException as failure:
                errors.append(failure)
        for raised in errors:
            self._telling.callback_raised(raised, ticket)
        if self._own.ended:
            self._settle(self._own)
        return self._next() if schedule.running or schedule.waiting else None

    def _free(self) -> None:
        """Free the slots, and let the watchdog and the program go."""
        unwatch(self)
        self._is_freeing = True
        try:
            if self._slots is not None:
                self._slots.close()
        except RunError as error:
            self._release_error = error
        finally:
            if self._shared is not None:
                self._shared.leave(self)
            self._has_ended.set()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _no_thread(error: RuntimeError) -> RunError:
    return RunError(
        f"a pipeline needs a thread, and none can be started: {error}. Raise the limit of "
        "processes (`ulimit -u`, or the container's pids limit), or close other pipelines."
    )


def _without_this_frame(error: BaseException) -> BaseException:
    """Return the error without the worker's own stack frame, whose variables hold its ticket."""
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace is not None else None)
