"""Wakes those who wait for a device that has stopped answering.

Waiting for a frame itself needs no timeout then, which costs more than the hand-over it guards. One
thread serves every pipeline of the process, and ends with the last.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Protocol

_PERIOD_S = 0.25


class Watched(Protocol):
    """Something that can be stuck."""

    def wake_stalled(self) -> None:
        """Wake all who wait, if the device has not answered for too long."""


_lock = threading.Lock()
_watched: list[Watched] = []
_changed = threading.Event()
_thread: threading.Thread | None = None


def watch(item: Watched) -> None:
    """Look after `item` until `unwatch`."""
    global _thread
    with _lock:
        _watched.append(item)
        if _thread is None or not _thread.is_alive():  # fork() leaves it behind
            _thread = threading.Thread(target=_look, name="edgevision watchdog", daemon=True)
            _thread.start()


def unwatch(item: Watched) -> None:
    """Forget `item`; safe to call twice."""
    with _lock, suppress(ValueError):
        _watched.remove(item)
        _changed.set()


def _look() -> None:
    global _thread
    while True:
        _changed.wait(_PERIOD_S)
        _changed.clear()
        with _lock:
            if not _watched:
                _thread = None
                return
            items = list(_watched)
        for item in items:
            item.wake_stalled()


def _reset() -> None:
    """Start afresh in a forked child: the thread is gone, and may have held the lock."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _watched.clear()


os.register_at_fork(after_in_child=_reset)
