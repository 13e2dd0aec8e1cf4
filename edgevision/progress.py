"""The callback by which long work reports how far it is; who shows it decides how."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called with a phase and how much of it is done; must return quickly and never raise."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `phase` are over; `total` 0 means unknown."""


def silent(phase: str, done: int, total: int) -> None:
    """Show nothing."""


def with_time_left(
    progress: Progress, *, begin: int = 0, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Return what reports as `progress` does, and the time that is left at the pace until then.

    Args:
        progress: is told.
        begin: how many steps are over now.
        clock: in seconds.
    """
    start_s = clock()

    def report(phase: str, done: int, total: int) -> None:
        if done > begin:
            left_s = (clock() - start_s) / (done - begin) * (total - done)
            hours, minutes = divmod(round(left_s / 60), 60)
            phase = f"{phase}, {hours}:{minutes:02d} h left"
        progress(phase, done, total)

    return report
