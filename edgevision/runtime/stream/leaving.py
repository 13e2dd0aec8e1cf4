"""The interpreter's exit: no thread is cut off inside an engine, for that ends in an abort."""

from __future__ import annotations

import atexit
import os
import weakref
from time import perf_counter_ns
from typing import Protocol

_POLL_S = 0.25


class Thread(Protocol):
    """A thread that runs an engine.

    Attributes:
        stall_ms: how long it may take to end.
    """

    stall_ms: float

    def forget(self) -> None:
        """Ask it to end soon; returns at once."""

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end, at most so long; returns whether it came."""


_alive: weakref.WeakSet[Thread] = weakref.WeakSet()


def end_at_exit(thread: Thread) -> None:
    """Ask `thread` to end, and wait for it, when the interpreter exits."""
    _alive.add(thread)


def _end_all() -> None:
    """End all that are left; a stuck device, or a callback that never returns, is left behind."""
    threads = list(_alive)
    for thread in threads:
        thread.forget()
    for thread in threads:
        end_ns = perf_counter_ns() + int(thread.stall_ms * 1e6)
        while perf_counter_ns() < end_ns:
            try:
                if thread.has_ended(_POLL_S):
                    break
            except KeyboardInterrupt:  # the frame in flight is all that is waited for
                continue


def _forget_all() -> None:
    """In a forked child: the threads are the parent's."""
    _alive.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)
