"""The controls of the stand-in driver, for a process that runs on it."""

from __future__ import annotations

import ctypes

_driver = ctypes.CDLL("libcuda.so.1")
_driver.standin_calls.restype = ctypes.c_long
_driver.standin_live.restype = ctypes.c_long

KINDS = ("device", "host", "stream", "event", "graph", "exec", "context")


def fail(name: str, code: int, *, nth: int = 1) -> None:
    """Make the nth next call of a driver function fail; code 700 also fails all that follow."""
    if _driver.standin_fail(name.encode(), nth, code):
        raise ValueError(f"{name}, call {nth}: no such function or call")


def calls(name: str | None = None) -> int:
    """Return how often a driver function was called since the last reset; all by default."""
    count = _driver.standin_calls(name.encode() if name else None)
    if count < 0:
        raise ValueError(f"{name}: no such function")
    return int(count)


def live() -> dict[str, int]:
    """Return how many objects of each kind were made and not destroyed, where there are any."""
    counts = {kind: int(_driver.standin_live(kind.encode())) for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}


def stall(on: bool) -> None:
    """Hold all queues, or let them go on."""
    _driver.standin_stall(int(on))


def reset_counts() -> None:
    """Count calls from here."""
    _driver.standin_reset_counts()
