"""The life of a resource: where it was opened, its end, and the warning when it was forgotten."""

from __future__ import annotations

import os
import sys
import warnings
import weakref

from edgevision.errors import ClosedError

_alive: weakref.WeakSet[Lifetime] = weakref.WeakSet()


class Lifetime:
    """Whether a resource is open, and the user's line that opened it."""

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.is_open = True
        self.opened_at = _caller()
        self.is_forked = False
        _alive.add(self)

    def check(self) -> None:
        """Raise ClosedError once the resource is closed."""
        self.check_process()
        if not self.is_open:
            raise ClosedError(
                f"{self.resource} is closed. It was opened at {self.opened_at}; open it again, or "
                "keep it open (`with ... as ...:`) for as long as you use it."
            )

    def check_process(self) -> None:
        """Raise ClosedError in a process that was forked from the one that opened it."""
        if self.is_forked:
            raise ClosedError(
                f"{self.resource} belongs to the process that opened it, at {self.opened_at}; a "
                "GPU and its threads do not survive fork(). Load the model in the child, or start "
                "it with multiprocessing's 'spawn'."
            )

    def end(self) -> bool:
        """Mark the resource closed; False if it was closed before, or lives in another process."""
        was_open, self.is_open = self.is_open, False
        return was_open

    @property
    def is_forgotten(self) -> bool:
        """Whether the resource is dropped without `close()`; for destructors."""
        return self.is_open and not sys.is_finalizing()

    def warn(self) -> None:
        """Warn of a resource that was forgotten.

        For the end of a destructor: where warnings are errors this raises, and what comes after it
        is not done.
        """
        warnings.warn(
            f"{self.resource}, opened at {self.opened_at}, was never closed",
            ResourceWarning,
            stacklevel=3,
        )

    def _fork(self) -> None:
        self.is_forked, self.is_open = True, False


def _end_all() -> None:
    """In a forked child, end what belongs to the parent, so that no use or close reaches it."""
    for lifetime in list(_alive):
        lifetime._fork()


os.register_at_fork(after_in_child=_end_all)


def _caller() -> str:
    """Return `file:line` of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("edgevision."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
