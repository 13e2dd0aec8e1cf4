"""The workers of a process: looked after while they live, ended at its exit, left in its children.

Waiting for a frame needs no timeout then, which costs more than the hand-over it guards: one
watchdog thread serves every pipeline of the process, and ends with the last. At the interpreter's
exit no thread is cut off inside an engine, for that ends in an abort.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

from edgevision.errors import RunError
from edgevision.runtime.stream.in_flight import InFlight

_PERIOD_S = 0.25
_log = logging.getLogger(__name__)


_lock = threading.Lock()
_alive: list[InFlight[Any]] = []
_changed = threading.Event()
_thread: threading.Thread | None = None


def watch(item: InFlight[Any]) -> None:
    """Look after `item` until `unwatch`.

    Raises:
        RunError: no thread can be started.
    """
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():  # fork() leaves it behind
            _changed.clear()
            thread = threading.Thread(target=_look, name="edgevision watchdog", daemon=True)
            start(thread)  # it waits for the lock before it looks whether anybody is watched
            _thread = thread
        _alive.append(item)


def unwatch(item: InFlight[Any]) -> None:
    """Forget `item`, which has ended; safe to call twice."""
    with _lock, suppress(ValueError):
        _alive.remove(item)
        _changed.set()


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RunError: none can be started.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise RunError(
            f"a pipeline needs a thread, and none can be started: {error}. Raise the limit of "
            "processes (`ulimit -u`, or the container's pids limit), or close other pipelines."
        ) from error


def _look() -> None:
    global _thread
    while True:
        _changed.wait(_PERIOD_S)
        _changed.clear()
        with _lock:
            if not _alive:
                _thread = None
                return
            items = list(_alive)
        for item in items:
            try:
                item.look()
            except Exception:  # of whoever waits, e.g. in a closed event loop: others wait, too
                _log.exception("one pipeline could not be looked after")


def _end_all() -> None:
    """End all that are left; a stuck device, or a callback that never returns, is left behind."""
    items = list(_alive)
    for item in items:
        item.forget()
    for item in items:
        end_ns = perf_counter_ns() + int(item.stall_ms * 1e6)
        while perf_counter_ns() < end_ns:
            try:
                if item.end_gate.wait():
                    break
            except KeyboardInterrupt:  # the frame in flight is all that is waited for
                continue


def _reset() -> None:
    """Start afresh in a forked child: the threads are the parent's, and may have held the lock."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _alive.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_reset)
