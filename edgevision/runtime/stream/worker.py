"""A pipeline's worker: launches what waits, waits for the device, answers in order.

One worker is one opening of a pipeline, with its slots and its thread; after an engine failed it is
done for, and `Pipeline.reopen` makes another. On a device with queues frames are launched by
whoever submits them and, when one was waiting, here; without queues they run here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import FrameDroppedError, FrameLostError, RunError, StalledError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.slots import Slots
from edgevision.runtime.stream.schedule import (
    CLOSED,
    HOPELESS,
    REPLACED,
    Entry,
    Schedule,
    StreamOptions,
)
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.watchdog import unwatch, watch
from edgevision.tasks.timings import Timings, timings

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


class Worker(Generic[T]):
    """Runs the frames of one schedule.

    Attributes:
        free: slots that nobody uses; see `Slots`.
        failure: what ended it before its time.
        failed_frames: the numbers of the frames that were lost with it.
    """

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        options: StreamOptions,
        run_options: RunOptions,
        *,
        schedule: Schedule[T],
        lock: threading.Lock,
        codec: Codec[F, T],
        on_result: Callable[[Ticket[T]], None] | None,
        is_used: Callable[[], bool],
    ) -> None:
        """Make the slots and start; `lock` guards `schedule` for as long as a pipeline lives.

        `is_used` says whether anybody is about to submit, and so may hold a slot.
        """
        self.failure: BaseException | None = None
        self.failed_frames: list[int] = []
        self.callback_error: BaseException | None = None
        self._release_error: RunError | None = None
        self._is_closing = False
        self._device = program.device
        self._active = program.device.active()
        self._queues = program.device.capabilities.async_copies
        self._stall_ms = options.stall_ms
        self._schedule = schedule
        self._lock = lock
        self._decode = codec.decode
        self._on_result = on_result
        self._is_used = is_used
        self._jobs: SimpleQueue[Entry[T] | None] = SimpleQueue()
        self._slots = Slots(
            program,
            profiles,
            run_options,
            count=options.slots,
            share_scratch=schedule.depth == 1,
            warm_up=True,
        )
        self.free = self._slots.free
        self._thread = threading.Thread(target=self._work, name="edgevision pipeline", daemon=True)
        self._thread.start()

    # For whoever submits

    def enter(self, entry: Entry[T]) -> None:
        """Queue a filled slot, and launch it if the device has room.

        The ticket gets its number here; it has none if the worker failed or is closing.
        """
        settled: _Settled[T] = []
        try:
            with self._lock:
                if self._is_closing or self.failure is not None:
                    self.free.put(entry.slot)
                else:
                    replaced = self._schedule.enter(entry)
                    if replaced is not None:
                        self._drop(replaced, REPLACED, settled)
                    if self._queues:
                        with self._active:
                            self._launch_waiting(settled)
                    else:
                        self._launch_waiting(settled)
        finally:  # Ctrl-C, too: others may wait for the frames that it cost
            if settled:
                self._tell(settled)

    def make_place(self) -> None:
        """Drop the frame that has waited longest, so that its slot is free."""
        settled: _Settled[T] = []
        with self._lock:
            entry = self._schedule.drop_oldest()
            if entry is not None:
                self._drop(entry, REPLACED, settled)
        self._tell(settled)

    def end(self, *, drain: bool) -> None:
        """Finish the frames inside, or drop those that wait, and end; returns at once."""
        settled: _Settled[T] = []
        with self._lock:
            self._is_closing = True
            while not drain and (entry := self._schedule.drop_oldest()) is not None:
                self._drop(entry, CLOSED, settled)
            # Whoever was interrupted between entering a frame and launching it has left it here.
            with self._active:
                self._launch_waiting(settled)
            if self._schedule.is_empty:
                self._jobs.put(None)
        self.free.put(None)  # wakes those who wait for a slot
        self._tell(settled)

    def close(self) -> None:
        """Wait for the thread, as long as the device makes progress, and free the slots.

        Raises:
            StalledError: the device does not answer; what it holds is abandoned, not freed.
            CudaError: something could not be freed.
        """
        end_ns = perf_counter_ns() + int(self._stall_ms * 1e6)
        while self._thread.is_alive():
            self._thread.join(timeout=_POLL_S)
            self.check_progress()
            if self.failure is not None and perf_counter_ns() > end_ns:
                raise StalledError(
                    f"{self._device.name} does not answer after it failed: {self.failure} "
                    "Restart the process."
                )
        self._slots.close(is_used=self._is_used)  # where the thread has not: it had failed
        if self._release_error is not None:
            raise self._release_error

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
                f"{self._stall_ms:.0f} ms); it holds frames {frames}. Read the driver's "
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

    # With the lock held

    def _stalled_ms(self) -> float:
        """Return for how long the device has not answered; 0 while that is no longer than usual."""
        running = self._schedule.running
        age_ms = (perf_counter_ns() - running[0].launched_ns) / 1e6 if running else 0.0
        return age_ms if age_ms >= self._stall_ms else 0.0

    def _launch_waiting(self, settled: _Settled[T]) -> None:
        """Launch what waits while the device has room."""
        schedule = self._schedule
        try:
            while schedule.waiting and (started := schedule.start(perf_counter_ns())) is not None:
                entry, runs = started
                if not runs:
                    self._drop(entry, HOPELESS, settled)
                    continue
                if self._queues:
                    entry.slot.launch()
                self._jobs.put(entry)
        except BaseException as error:
            # Ctrl-C, too: a frame that was started and not passed on would never end.
            self._fail(error, settled)
            if not isinstance(error, Exception):
                raise

    def _drop(self, entry: Entry[T], why: str, settled: _Settled[T]) -> None:
        """Free the slot of a frame that the schedule gave up."""
        settled.append((entry.ticket, FrameDroppedError(f"frame {entry.ticket.sequence}: {why}")))
        self.free.put(entry.slot)

    def _fail(self, error: BaseException, settled: _Settled[T]) -> None:
        """Give up all frames inside; `reopen` or `close` cleans up."""
        if self.failure is not None:
            return
        entries = self._schedule.abandon()
        self.failed_frames = [entry.ticket.sequence for entry in entries]
        self.failure = error
        for entry in entries:
            lost = FrameLostError(f"frame {entry.ticket.sequence}: the engine failed: {error}")
            lost.__cause__ = error
            settled.append((entry.ticket, lost))
            self.free.put(entry.slot)
        self._jobs.put(None)
        self.free.put(None)

    # On the worker's thread

    def _work(self) -> None:
        watch(self)
        with self._active:
            while (entry := self._jobs.get()) is not None:
                if self.failure is None:
                    self._finish(entry)
        unwatch(self)
        if self._is_closing:
            try:
                self._slots.close(is_used=self._is_used)
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
            answer = self._decode(outputs, times)
        except Exception as failure:  # the frame's own error: told by its ticket
            error = failure
        done_ns = perf_counter_ns()
        with self._lock:
            if self.failure is not None:
                return  # it was given up for lost in the meantime
            if not self._schedule.finish(computed_ns, done_ns):
                answer, error = None, FrameDroppedError(f"frame {ticket.sequence}: it came late")
            self.free.put(slot)
            if self._schedule.waiting:
                self._launch_waiting(settled)
            if self._is_closing and self._schedule.is_empty:
                self._jobs.put(None)
        try:
            ticket.resolve(answer, error, done_ns)
            if self._on_result is not None:
                self._on_result(ticket)
        except BaseException as failure:
            self.callback_error = failure
        if settled:
            self._tell(settled)

    def _tell(self, settled: _Settled[T]) -> None:
        """Resolve tickets that have no answer."""
        for ticket, error in settled:
            try:
                ticket.resolve(None, error, perf_counter_ns())
            except Exception as failure:
                self.callback_error = failure
