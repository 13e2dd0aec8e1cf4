"""Answers for an event loop: what `async for ticket in pipeline` goes through."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from edgevision.runtime.stream.ticket import Ticket

T = TypeVar("T")


class Answers(Generic[T]):
    """The tickets of frames that ran, in order, for one loop.

    A loop that takes longer than the answers keeps the newest of them; which it missed shows in
    `Ticket.sequence`, and each of those has its answer all the same.
    """

    def __init__(
        self,
        listeners: list[weakref.ref[Answers[T]]],
        kept: int,
        is_at_end: Callable[[], bool],
    ) -> None:
        """Listen from now on; `is_at_end` raises what ended the pipeline before its time."""
        self._tickets: deque[Ticket[T]] = deque(maxlen=kept)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_at_end = is_at_end
        listeners.append(weakref.ref(self, listeners.remove))

    def offer(self, ticket: Ticket[T]) -> None:
        """Add an answer; on the worker's thread."""
        self._tickets.append(ticket)
        self.wake()

    def wake(self) -> None:
        """Let the loop look what has happened; on any thread."""
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._news.set)

    def __aiter__(self) -> Answers[T]:
        return self

    async def __anext__(self) -> Ticket[T]:
        """Wait for the next answer.

        Raises:
            StopAsyncIteration: the pipeline is closed, and all answers were given.
        """
        while not self._tickets:
            self._news.clear()
            is_at_end = self._is_at_end()  # before another look at the tickets
            if self._tickets:
                break
            if is_at_end:
                raise StopAsyncIteration
            await self._news.wait()
        return self._tickets.popleft()


def wake_all(listeners: list[weakref.ref[Answers[T]]]) -> None:
    """Let every loop look what has happened."""
    for listener in tuple(listeners):
        if (answers := listener()) is not None:
            answers.wake()
