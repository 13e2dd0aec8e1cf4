"""Wakes those who wait for a device that has stopped answering.

Waiting for a frame itself needs no timeout then, which costs more than the hand-over it guards. One
thread serves every pipeline of the process, and ends with the last.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import Protocol

_PERIOD_S = 0.25
_log = logging.getLogger(__name__)


class Watched(Protocol):
    """Something that can be stuck."""

    def look(self) -> None:
        """Wake all who wait, if the device has not answered for too long; returns at once."""


_lock = threading.Lock()
_watched: list[Watched] = []
_changed = threading.Event()
_thread: threading.Thread | None = None


def watch(item: Watched) -> None:
    """Look after `item` until `unwatch`.

    Raises:
        RuntimeError: no thread can be started.
    """
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():  # fork() leaves it behind
            _changed.clear()
            thread = threading.Thread(target=_look, name="edgevision watchdog", daemon=True)
            thread.start()  # it waits for the lock before it looks whether anybody is watched
            _thread = thread
        _watched.append(item)


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
            try:
                item.look()
            except Exception:  # of whoever waits, e.g. in a closed event loop: others wait, too
                _log.exception("one pipeline could not be looked after")


def _reset() -> None:
    """Start afresh in a forked child: the thread is gone, and may have held the lock."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _watched.clear()


os.register_at_fork(after_in_child=_reset)
