"""A ticket: what `Pipeline.submit` gives for a frame, and where its answer arrives."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Generator
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

from edgevision.errors import ClosedError
from edgevision.runtime.lifetime import Lifetime

T = TypeVar("T")
_MAX_S = 1e6
"""Longer than anybody waits, and short enough for every system's clock."""


class Watched(Protocol):
    """What a ticket asks before it waits, and when it is woken without an answer.

    Attributes:
        lifetime: says whether this is a process that was forked from the one that answers.
    """

    lifetime: Lifetime

    def check_progress(self) -> None:
        """Raise StalledError if the device has not answered for too long."""


class Ticket(Generic[T]):
    """One submitted frame; `result()`, `await ticket` or `add_done_callback` give its answer.

    Attributes:
        sequence: the frame's number, in the order of submission.
        stamp_ns: when the frame was taken, by `time.perf_counter_ns`, as `submit` was told.
        deadline_ns: when its answer is late; None without a deadline.
        done_ns: when its answer was there; 0 before.
        meta: what `submit` was given beside the frame; the pipeline does not look at it.
    """

    __slots__ = (
        "_answer",
        "_callbacks",
        "_error",
        "_gate",
        "_raised",
        "_waiting",
        "_watch",
        "deadline_ns",
        "done_ns",
        "meta",
        "sequence",
        "stamp_ns",
    )

    def __init__(
        self, stamp_ns: int, deadline_ns: int | None, watch: Watched | None, meta: object = None
    ) -> None:
        self.sequence = -1
        self.stamp_ns = stamp_ns
        self.deadline_ns = deadline_ns
        self.done_ns = 0
        self.meta = meta
        self._answer: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Ticket[T]], None]] = []
        self._raised: tuple[BaseException, ...] = ()
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
            ClosedError: it is not done, and this is a child that was forked from the process that
                answers.
            ValueError: `timeout_s` is not a number.
        """
        if not self.done_ns:
            self._wait(timeout_s)
        if self._error is not None:
            raise self._new_error()
        return self._answer  # type: ignore[return-value]

    def error(self) -> BaseException | None:
        """Return why there is no answer; None while waiting and if there is one."""
        return self._error

    def add_done_callback(self, callback: Callable[[Ticket[T]], None]) -> None:
        """Call `callback(ticket)` once it is done, on the thread that finishes it, or here now.

        Callbacks are called in the order in which they were added. What one raises there is logged
        and told by the pipeline; what it raises here is raised here.

        Raises:
            TypeError: asyncio takes the ticket for one of its futures.
        """
        if getattr(callback, "__module__", "") == "asyncio.tasks":
            raise TypeError(
                "a ticket is not an asyncio future: give asyncio.wait what "
                "asyncio.ensure_future(ticket) returns, or await the ticket"
            )
        self._callbacks.append(callback)
        if self.done_ns:
            self._call_back()
            first = error = self.pop_error()
            while error is not None and (following := self.pop_error()) is not None:
                error.__context__ = error = following  # of one that was added before, and races
            if first is not None:
                raise first

    def __await__(self) -> Generator[object, None, T]:
        """Wait in an event loop; the same as `result()` otherwise."""
        while (watch := self._watch) is not None:
            watch.lifetime.check_process()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((loop, future))
            if not self.done_ns:
                yield from future
            if not self.done_ns:
                watch.check_progress()
        return self.result()

    def resolve(self, answer: T | None, error: BaseException | None, done_ns: int) -> None:
        """Give the answer, or why there is none; for the pipeline, which may say it again.

        What callbacks raised is then to be had from `pop_error`.
        """
        if not self.done_ns:
            self._answer, self._error = answer, error
            self.done_ns = done_ns
        self._watch = None  # a ticket that is kept keeps no engine
        if self._waiting:
            self._wake_loops()
        try:  # noqa: SIM105 (a frame has no time for contextlib)
            self._gate.release()
        except RuntimeError:
            pass  # it was open: somebody else had woken the next who waits
        if self._callbacks:
            self._call_back()

    def pop_error(self) -> BaseException | None:
        """Return what a callback raised and nobody has been told of; None if nothing is left."""
        raised = self._raised
        if not raised:
            return None
        self._raised = raised[1:]
        return raised[0]

    def wake(self) -> None:
        """Let those who wait ask after the device."""
        if self._waiting:
            self._wake_loops()
        try:
            self._gate.release()
        except RuntimeError:
            return

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what tells the frame: the answer belongs to the process that waits for it."""
        return _elsewhere, (self.sequence, self.stamp_ns, self.deadline_ns)

    def _wake_loops(self) -> None:
        while self._waiting:
            try:
                loop, future = self._waiting.pop()
                loop.call_soon_threadsafe(_finish, future)
            except (RuntimeError, IndexError):  # the loop was closed; another thread took it
                continue

    def _wait(self, timeout_s: float | None) -> None:
        watch = self._watch
        if watch is None:
            return
        if watch.lifetime.is_forked:
            watch.lifetime.check_process()
        end_ns = None if timeout_s is None else perf_counter_ns() + _ns(timeout_s)
        try:
            while not self.done_ns:
                if end_ns is None:
                    self._gate.acquire()
                elif not self._gate.acquire(timeout=max(0.0, (end_ns - perf_counter_ns()) / 1e9)):
                    raise TimeoutError(f"frame {self.sequence} has no answer after {timeout_s} s")
                if not self.done_ns:
                    watch.check_progress()
        finally:  # Ctrl-C, too, may come once the gate is passed, and others wait for it
            if self.done_ns:
                try:  # noqa: SIM105 (as in `resolve`)
                    self._gate.release()
                except RuntimeError:
                    pass  # `resolve` was just about to

    def _new_error(self) -> BaseException:
        """Return the error again: one that was raised holds its traceback, and so this ticket."""
        error = self._error
        assert error is not None
        try:
            fresh = copy.copy(error)
        except Exception:  # somebody's own class, raised by a decoder
            return error
        fresh.__cause__, fresh.__suppress_context__ = error.__cause__, error.__suppress_context__
        return fresh.with_traceback(error.__traceback__)

    def _call_back(self) -> None:
        """Call those who asked for it, each once, whichever thread comes first."""
        callbacks = self._callbacks
        while callbacks:
            try:
                # No call stands between: Ctrl-C finds it in the list, or called.
                callback = callbacks[0]
                del callbacks[0]
            except IndexError:
                break
            try:
                callback(self)
            except BaseException as error:
                self._raised = (*self._raised, error)


def _ns(timeout_s: float) -> int:
    try:
        return int(min(timeout_s, _MAX_S) * 1e9)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"timeout_s: got {timeout_s!r}, expected seconds, or None") from error


def _elsewhere(sequence: int, stamp_ns: int, deadline_ns: int | None) -> Ticket[object]:
    """Return a ticket as it is in another process."""
    ticket: Ticket[object] = Ticket(stamp_ns, deadline_ns, None)
    ticket.sequence = sequence
    message = f"frame {sequence} is of another process: send its result from there, not its ticket"
    ticket.resolve(None, ClosedError(message), perf_counter_ns())
    return ticket


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
