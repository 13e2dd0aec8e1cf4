"""A ticket: what `Pipeline.submit` gives for a frame, and where its answer arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Watched(Protocol):
    """What a ticket asks when it is woken without an answer."""

    def check_progress(self) -> None:
        """Raise StalledError if the device has not answered for too long."""


class Ticket(Generic[T]):
    """One submitted frame; `result()`, `await ticket` or `add_done_callback` give its answer.

    Attributes:
        sequence: the frame's number, in the order of submission.
        stamp_ns: when the frame was taken, by `time.perf_counter_ns`, as `submit` was told.
        deadline_ns: when its answer is late; None without a deadline.
        done_ns: when its answer was there; 0 before.
    """

    __slots__ = (
        "_answer",
        "_callbacks",
        "_error",
        "_gate",
        "_waiting",
        "_watch",
        "deadline_ns",
        "done_ns",
        "sequence",
        "stamp_ns",
    )

    def __init__(self, stamp_ns: int, deadline_ns: int | None, watch: Watched) -> None:
        self.sequence = -1
        self.stamp_ns = stamp_ns
        self.deadline_ns = deadline_ns
        self.done_ns = 0
        self._answer: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Ticket[T]], None]] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._watch = watch
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def is_done(self) -> bool:
        """Whether `result()` returns or raises at once."""
        return self.done_ns != 0

    @property
    def is_late(self) -> bool:
        """Whether its answer came after the deadline, or is not there although that has passed."""
        return self.deadline_ns is not None and (
            (self.done_ns or perf_counter_ns()) > self.deadline_ns
        )

    @property
    def age_ms(self) -> float:
        """How old the frame was when its answer came, or is now."""
        return ((self.done_ns or perf_counter_ns()) - self.stamp_ns) / 1e6

    def result(self, timeout_s: float | None = None) -> T:
        """Wait for the answer; it is the caller's own.

        Raises:
            FrameDroppedError: the policy or the deadline dropped the frame.
            FrameLostError: the engine failed while the frame was in the pipeline.
            StalledError: the device has not answered for too long.
            TimeoutError: `timeout_s` has passed.
        """
        if not self.done_ns:
            self._wait(timeout_s)
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value]

    def error(self) -> BaseException | None:
        """Return why there is no answer; None while waiting and if there is one."""
        return self._error

    def add_done_callback(self, callback: Callable[[Ticket[T]], None]) -> None:
        """Call `callback(ticket)` once it is done, on the thread that finishes it, or here now."""
        self._callbacks.append(callback)
        if self.done_ns:
            self._call_back()

    def __await__(self) -> Generator[object, None, T]:
        """Wait in an event loop; the same as `result()` otherwise."""
        while not self.done_ns:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((loop, future))
            if not self.done_ns:
                yield from future
            if not self.done_ns:
                self._watch.check_progress()
        return self.result()

    def resolve(self, answer: T | None, error: BaseException | None, done_ns: int) -> None:
        """Give the answer, or why there is none; for the pipeline, once."""
        self._answer, self._error = answer, error
        self.done_ns = done_ns
        self.wake()
        if self._callbacks:
            self._call_back()

    def wake(self) -> None:
        """Let those who wait look for the answer, or ask after the device."""
        if self._waiting:
            self._wake_loops()
        try:
            self._gate.release()
        except RuntimeError:
            return  # it was open: somebody else had woken the next who waits

    def _wake_loops(self) -> None:
        while self._waiting:
            try:
                loop, future = self._waiting.pop()
                loop.call_soon_threadsafe(_finish, future)
            except (RuntimeError, IndexError):  # the loop was closed; another thread took it
                continue

    def _wait(self, timeout_s: float | None) -> None:
        end_ns = None if timeout_s is None else perf_counter_ns() + int(timeout_s * 1e9)
        while True:
            if end_ns is None:
                self._gate.acquire()
            elif not self._gate.acquire(timeout=max(0.0, (end_ns - perf_counter_ns()) / 1e9)):
                raise TimeoutError(f"frame {self.sequence} has no answer after {timeout_s} s")
            if self.done_ns:
                break
            self._watch.check_progress()
        try:
            self._gate.release()  # for the next who waits
        except RuntimeError:
            return  # `wake` was just about to

    def _call_back(self) -> None:
        # Whoever pops a callback calls it: once, whichever thread comes first.
        while self._callbacks:
            with suppress(IndexError):
                self._callbacks.pop()(self)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
