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
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

from edgevision.bundle.tensors import Profiles
from edgevision.errors import ClosedError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.sharing import SharedProgram
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.lending import PipelineInput
from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.slots.slots import NO_STATE
from edgevision.runtime.stream.clocks import Clock, StampClock
from edgevision.runtime.stream.in_flight import OnResult, Setup
from edgevision.runtime.stream.life import Life
from edgevision.runtime.stream.schedule import Entry, Schedule, StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.trace import Trace
from edgevision.runtime.stream.worker import Worker
from edgevision.tasks.timings import Timings

T = TypeVar("T")
F = TypeVar("F")
T_co = TypeVar("T_co", covariant=True)
F_contra = TypeVar("F_contra", contravariant=True)
_REOPENED = "the pipeline was reopened while this frame was made; take a new buffer for the next"


class Codec(Protocol[F_contra, T_co]):
    """Turns a frame into feeds, and outputs, which are its own, into an answer."""

    def feeds(self, frame: F_contra) -> Mapping[str, object]:
        """Return the frame as the program's inputs; FrameError if it is none."""

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> T_co:
        """Return the answer."""


class Pipeline(Life[T], Generic[F, T]):
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
        state: what each run hands on to the next, see `CarriedState`: one frame at a time is on the
            device then, whatever the policy.

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
        state: Mapping[str, str] = NO_STATE,
    ) -> None:
        if on_result is not None and (
            not callable(on_result) or inspect.iscoroutinefunction(on_result)
        ):
            raise TypeError(
                f"on_result: got {on_result!r}, expected a plain function of a ticket; it is "
                "called on the pipeline's own thread, where nothing can be awaited"
            )
        self._clock = StampClock(clock)
        self.options = options
        self.program = program
        self._on_result = None if on_result is None else partial(on_result)
        self._owner = owner
        self._feeds = codec.feeds
        fed = tuple(spec for spec in program.inputs if spec.name not in state)
        self._check = FeedCheck(fed, profiles, program.device)
        deadline_ms = options.deadline_ms
        self._deadline_ns = None if deadline_ms is None else int(deadline_ms * 1e6)
        queues = program.device.capabilities.async_copies
        super().__init__(
            Setup(
                program,
                profiles,
                run_options,
                options,
                codec.decode,
                None if self._on_result is None else weakref.ref(self._on_result),
                Schedule(options, depth=options.depth if queues and not state else 1),
                threading.RLock(),  # a signal's handler may call anything in the middle of anything
                Lifetime("the pipeline"),
                shared,
                None if options.trace is None else Trace(options.trace, options.slots),
                state,
            )
        )

    def submit(
        self,
        frame: F,
        *,
        stamp_ns: int | None = None,
        meta: object = None,
        is_cut: bool = False,
    ) -> Ticket[T]:
        """Take a frame; it is copied before the call returns, and may be used again.

        Args:
            frame: what the model takes, see `Model`.
            stamp_ns: when the frame was taken, by the pipeline's clock; now if not given.
            meta: anything that is to come out with the answer, as `Ticket.meta`.
            is_cut: whether this frame does not follow on the last: a model with state forgets that
                first. If this frame is dropped, the next that runs begins again.

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
            self._check_usable()
        feeds = self._check(self._feeds(frame))
        entry: Entry[T] = Entry(perf_counter_ns())
        stamp_ns = entry.start_ns if stamp_ns is None else self._clock.stamp_ns(stamp_ns)
        deadline_ns = None if self._deadline_ns is None else stamp_ns + self._deadline_ns
        if is_cut:
            entry.is_cut = True
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
            self._check_usable()  # it failed or was closed in the meantime, or it was reopened
            worker, entry = self._worker, Entry(entry.start_ns)
            entry.is_cut = is_cut
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
        self._check_usable()
        worker = self._worker
        entry: Entry[T] = Entry(perf_counter_ns())

        def submit(stamp_ns: int | None, meta: object, is_cut: bool) -> Ticket[T]:
            stamp_ns = entry.start_ns if stamp_ns is None else self._clock.stamp_ns(stamp_ns)
            deadline_ns = None if self._deadline_ns is None else stamp_ns + self._deadline_ns
            buffer.end()
            entry.ticket = Ticket(stamp_ns, deadline_ns, worker, meta)
            entry.is_cut = is_cut
            worker.enter(entry)
            if not entry.is_done:
                self._check_usable()
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

    def reset(self) -> None:
        """Let the next frame that is submitted begin with no state, as `is_cut` does.

        Raises:
            ClosedError: the pipeline is closed.
        """
        self._lifetime.check()
        with self._setup.lock:
            self._setup.schedule.is_next_cut = True

    def _wait(self, worker: Worker[T], entry: Entry[T]) -> Slot | None:
        """Return a slot to fill, by the policy, once it is this call's turn; None if reopened."""
        while True:
            if self.options.policy != "block":
                worker.make_place(entry)
            slot = worker.slots.wait(entry)
            if slot is not None:
                return slot
            worker.check_progress()
            self._check_usable()
            if worker is not self._worker:
                return None
