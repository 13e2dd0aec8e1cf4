"""A pipeline's worker: waits for the device, answers in order, finishes what others left behind.

One worker is one opening of a pipeline, with its slots and its thread; after an engine failed it is
done for, and `Pipeline.reopen` makes another. No signal reaches its thread, so that is where the
slots are made and freed.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import perf_counter_ns
from typing import TypeVar

from edgevision.errors import FrameDroppedError, RunError, StalledError
from edgevision.runtime.slots.slots import Slots
from edgevision.runtime.stream.answers import wake_all
from edgevision.runtime.stream.gate import Gate
from edgevision.runtime.stream.in_flight import InFlight, Setup
from edgevision.runtime.stream.schedule import Entry
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.workers import start, unwatch, watch
from edgevision.tasks.timings import timings

T = TypeVar("T")


class Worker(InFlight[T]):
    """Runs the frames of one opening.

    Attributes:
        newest: the ticket that was answered last.
        thread: which answers, and calls callbacks.
    """

    def __init__(self, setup: Setup[T]) -> None:
        super().__init__(setup)
        self.newest: Ticket[T] | None = None
        self._decode, self._on_result = setup.decode, setup.on_result
        self._listeners = setup.listeners
        self._has_begun = self._is_freeing = False
        self._opening_error: BaseException | None = None
        self._release_error: RunError | None = None
        self._own: Entry[T] = Entry()
        self._own.is_over = True  # nothing of its own is half done when it looks
        self._ready = Gate()
        self.thread = threading.Thread(target=self._work, name="edgevision pipeline", daemon=True)

    # For others

    def open(self) -> None:
        """Start the thread, and wait until it has made the slots.

        Raises:
            RunError: no thread can be started, or a slot cannot be made.
        """
        start(self.thread)
        while not self._ready.wait():
            pass
        if self._opening_error is not None:
            self.thread.join()
            raise self._opening_error

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
        while not self.end_gate.wait():
            self.check_progress()
            if self._is_freeing and self.failure is not None and perf_counter_ns() > end_ns:
                raise StalledError(
                    f"{self._device.name} does not answer after it failed: {self.failure} "
                    "Restart the process."
                )
        # Only now: CPython takes a thread for dead whose join() was interrupted.
        self.thread.join()
        error, self._release_error = self._release_error, None
        if error is not None:
            raise error

    # On its thread

    def _work(self) -> None:
        with self._lock:
            self._has_begun = not self._is_closing
        if not self._has_begun:
            return
        setup = self._setup
        try:
            watch(self)
            if setup.shared is not None:
                setup.shared.join(self)
            self.slots = Slots(
                setup.program,
                setup.profiles,
                setup.run_options,
                count=setup.options.slots,
                share_scratch=self._schedule.depth == 1,
                warm_up=True,
                state=setup.state,
            )
            self._measure()
        except BaseException as error:
            self._opening_error = error
            self._free()
            self._ready.open()
            return
        self._ready.open()
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
        setup = self._setup
        if setup.options.on_late == "drop" and not any(s.is_dynamic for s in setup.program.inputs):
            start_ns = perf_counter_ns()
            self.slots.all[-1].run()
            self._schedule.expect(perf_counter_ns() - start_ns)
            self.slots.begin_anew()

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
                if entry.is_cut:
                    slot.begin_anew()
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
        ticket.resolve(answer, error, done_ns)
        while (raised := ticket.pop_error()) is not None:
            self._log.callback_raised(raised, ticket)
        if self._on_result is not None:
            try:
                callback = self._on_result()
                if callback is not None:
                    callback(ticket)
            except BaseException as failure:
                self._log.callback_raised(failure, ticket)
        for listener in tuple(self._listeners):
            if (answers := listener()) is not None:
                answers.offer(ticket)
        if self._trace is not None:
            begun_ns = entry.start_ns, entry.filled_ns, entry.launched_ns, computed_ns, done_ns
            row = self.slots.all.index(slot)
            self._trace.frame(ticket.sequence, row, (*begun_ns, perf_counter_ns()))
        if self._own.ended:
            self._settle(self._own)
        return self._next() if schedule.running or schedule.waiting else None

    def _free(self) -> None:
        """Free the slots, and let the program and the process's watch go."""
        self._is_freeing = True
        try:
            if hasattr(self, "slots"):
                self.slots.close()
        except RunError as error:
            self._release_error = error
        finally:
            if self._setup.shared is not None:
                self._setup.shared.leave(self)
            if self._trace is not None and not self.lifetime.is_open:
                self._trace.close()
            unwatch(self)
            self.end_gate.open()
            wake_all(self._listeners)


def _without_this_frame(error: BaseException) -> BaseException:
    """Return the error without the worker's own stack frame, whose variables hold its ticket."""
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace is not None else None)
