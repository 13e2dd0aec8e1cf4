"""A pipeline's life: opened, opened again after its engine failed, closed, forgotten.

One worker serves it at a time; after a failure another takes its place.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from time import perf_counter_ns
from types import FrameType
from typing import Any, Generic, TypeVar

from edgevision.errors import CallbackError, RunError
from edgevision.runtime.stream.answers import Answers
from edgevision.runtime.stream.in_flight import Setup
from edgevision.runtime.stream.schedule import Counters
from edgevision.runtime.stream.ticket import Ticket
from edgevision.runtime.stream.worker import Worker

T = TypeVar("T")
L = TypeVar("L", bound="Life[Any]")


class Life(Generic[T]):
    """What a pipeline is beside the frames that go in."""

    def __init__(self, setup: Setup[T]) -> None:
        self._setup = setup
        # A signal's handler may call anything in the middle of anything.
        self._opening = threading.RLock()
        self._half_open: Worker[T] | None = None
        self._lifetime = setup.lifetime
        self._worker = worker = Worker(setup)
        try:
            worker.open()
        except BaseException:
            self._lifetime.end()
            worker.end(drain=False)
            if setup.trace is not None:
                setup.trace.close()
            raise

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
        with self._setup.lock:
            return self._setup.schedule.counters(perf_counter_ns())

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
            self._half_open = worker = Worker(self._setup)
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
        self._raise_callback_error(None)

    async def aclose(self, *, drain: bool = True) -> None:
        """Close without holding up the event loop; see `close`."""
        self._check_place("close()")
        self.ask_to_close(drain=drain)
        await asyncio.to_thread(self.close, drain=drain)

    def ask_to_close(self, *, drain: bool = False) -> None:
        """Take no more frames, and end once those inside are done; returns at once."""
        self._lifetime.end()
        self._worker.end(drain=drain)

    @property
    def is_inside(self) -> bool:
        """Whether the caller is called by the pipeline, or by a signal in the middle of a call."""
        if threading.current_thread() is self._worker.thread:
            return True
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_name == "submit" and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close(drain=error is None)
        except RunError:
            if error is None:  # never mask what the user's block raised
                raise

    async def __aenter__(self: L) -> L:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        try:
            await self.aclose(drain=error is None)
        except RunError:
            if error is None:
                raise

    def __aiter__(self) -> Answers[T]:
        """Go through the frames that ran, in order, as `on_result` is told of them.

        A loop that is slower than the answers gets the newest ones, as many as there are slots. It
        ends once the pipeline is closed.

        Raises:
            RunError: the engine has failed; after `reopen` another loop goes on.
            StalledError: the device has not answered for too long.

        Example:
            >>> async for ticket in pipeline:  # doctest: +SKIP
            ...     steer(ticket.result(), ticket.age_ms, ticket.meta)
        """
        self._lifetime.check_process()
        setup = self._setup
        return Answers(setup.listeners, setup.options.slots, self._is_at_end)

    def _is_at_end(self) -> bool:
        worker = self._worker
        if worker.end_gate.is_open and not self._lifetime.is_open:
            return True
        if self._lifetime.is_open:
            self._check_usable()
        worker.check_progress()
        return False

    def __del__(self) -> None:
        lifetime = getattr(self, "_lifetime", None)
        if lifetime is not None and lifetime.is_forgotten:
            lifetime.end()
            for worker in (getattr(self, "_worker", None), self._half_open):
                if worker is not None:
                    worker.forget()
            lifetime.warn()

    def _check_usable(self) -> None:
        self._lifetime.check()
        failure = self._worker.failure
        if failure is not None:
            raise RunError(
                f"the engine failed: {failure} "
                f"Lost frames: {self._worker.failed_frames}. Call reopen() to go on."
            ) from failure

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
