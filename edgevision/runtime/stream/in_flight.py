"""Frames in flight: entered, launched, given up and told, by whatever thread comes by.

On a device with queues frames are launched by whoever submits them and, when one was waiting, by
the worker; without queues the worker runs them. Signals reach the main thread only, so whoever
submits may be interrupted anywhere: its entry then says that its call is over, and the worker does
what it left half done. No lock is held while a frame is launched or a callback runs: those may take
any time, and others look on meanwhile.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import FrameDroppedError, FrameLostError, StalledError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.sharing import SharedProgram
from edgevision.runtime.slots.slots import NO_STATE, Slots
from edgevision.runtime.stream.answers import Answers, wake_all
from edgevision.runtime.stream.gate import Gate
from edgevision.runtime.stream.log import PipelineLog
from edgevision.runtime.stream.schedule import CLOSED, LOST, Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.trace import Trace
from edgevision.tasks.timings import Timings

T = TypeVar("T")
OnResult = Callable[[Ticket[T]], None]


@dataclass(frozen=True, slots=True)
class Setup(Generic[T]):
    """What a pipeline is made of, however often it is opened; see `Pipeline`.

    Attributes:
        on_result: gives the callback for as long as the pipeline is there, which must not be kept
            alive by its thread; None if there is none.
        lock: guards `schedule`.
        listeners: loops over its answers.
        trace: of its stages; None if nobody asked for one.
        state: what each run hands on to the next, see `CarriedState`.
    """

    program: Program
    profiles: Profiles
    run_options: RunOptions
    options: StreamOptions
    decode: Callable[[Mapping[str, Array], Timings], T]
    on_result: Callable[[], OnResult[T] | None] | None
    schedule: Schedule[T]
    lock: AbstractContextManager[bool]
    lifetime: Lifetime
    shared: SharedProgram | None
    trace: Trace | None
    state: Mapping[str, str] = field(default_factory=lambda: NO_STATE)
    listeners: list[weakref.ref[Answers[T]]] = field(default_factory=list)


class InFlight(Generic[T]):
    """The frames of one opening of a pipeline, which ends when the engine fails.

    Attributes:
        lifetime: the pipeline's.
        stall_ms: after that time a device that has not answered is reported.
        slots: what frames lie in; made by the worker.
        left: calls that were interrupted; what they have not done is the worker's. Whoever adds one
            calls `wake(None)` next, so that another Ctrl-C comes after both.
        failure: what ended it before its time.
        failed_frames: the numbers of the frames that were lost with it.
        callback_errors: what callbacks raised and nobody has been told of.
        end_gate: opened once its worker is done, and everything is freed.
    """

    slots: Slots

    def __init__(self, setup: Setup[T]) -> None:
        self.lifetime = setup.lifetime
        self.stall_ms = setup.options.stall_ms
        self.failure: BaseException | None = None
        self.failed_frames: list[int] = []
        self.left: deque[Entry[T]] = deque()
        self._calls: SimpleQueue[Entry[T] | None] = SimpleQueue()
        self.wake = self._calls.put
        self._setup = setup
        self._schedule = setup.schedule
        self._lock = setup.lock
        self._device = setup.program.device
        self._active = self._device.active()
        self._queues = self._device.capabilities.async_copies
        self._is_closing = self._is_forgotten = False
        self._waits_since_ns = 0
        self._trace = setup.trace
        self._log = PipelineLog(self._device.name)
        self.callback_errors = self._log.callback_errors
        self.end_gate = Gate()

    def enter(self, entry: Entry[T]) -> None:
        """Queue a filled slot, and launch it if the device has room.

        The entry is not in the schedule afterwards if the engine failed or the pipeline is closing.
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
        if hasattr(self, "slots"):
            self.slots.end()  # wakes those who wait for a slot

    def forget(self) -> None:
        """Drop what waits and end, for a destructor: it may run in the middle of anything."""
        self._is_forgotten = True
        self.wake(None)

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
        self._log.stalled(age_ms)
        if self._log.are_drops_due():
            self._log.drops(counters)
        for ticket in tickets:
            ticket.wake()
        if age_ms:
            wake_all(self._setup.listeners)

    def _stalled_ms(self) -> float:
        """Return for how long the device has not answered; 0 while that is no longer than usual.

        It has to answer to the worker once that waits, and before that to who launches. The lock is
        held.
        """
        running = self._schedule.running
        if not running:
            return 0.0
        is_launching = self._queues and not running[0].is_queued
        since_ns = running[0].launched_ns if is_launching else self._waits_since_ns
        age_ms = (perf_counter_ns() - since_ns) / 1e6 if since_ns else 0.0
        return age_ms if age_ms >= self.stall_ms else 0.0

    # Without the lock

    def _launch(self, entry: Entry[T], by: Entry[T]) -> None:
        """Queue a started frame; the device is active."""
        slot = entry.slot
        try:
            if slot is not None:
                if entry.is_cut:
                    slot.begin_anew()
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
        self._log.failed(error, self.failed_frames)
        self._settle(by)
        wake_all(self._setup.listeners)

    def _settle(self, by: Entry[T]) -> None:
        """Free the slots of frames that `by` took out, and tell their tickets."""
        interrupted: BaseException | None = None
        while by.ended:
            entry = by.ended[0]
            if not (self._queues and entry.is_launching):
                self.slots.give(entry)
            entry.ticket.resolve(None, self._why(entry), perf_counter_ns())
            while (error := entry.ticket.pop_error()) is not None:
                is_main = threading.current_thread() is threading.main_thread()
                if is_main and isinstance(error, KeyboardInterrupt):
                    interrupted = error  # the user's, who happened to press it in a callback
                else:
                    self._log.callback_raised(error, entry.ticket)
            if self._trace is not None:
                self._trace.drop(entry.ticket.sequence, entry.fate)
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
