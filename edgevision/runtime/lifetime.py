"""The life of a resource: where it was opened, and the warning when it was forgotten."""

from __future__ import annotations

import sys
import warnings

from edgevision.errors import ClosedError


class Lifetime:
    """Whether a resource is open, and the user's line that opened it."""

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.is_open = True
        self.opened_at = _caller()

    def check(self) -> None:
        """Raise ClosedError once the resource is closed."""
        if not self.is_open:
            raise ClosedError(
                f"{self.resource} is closed. It was opened at {self.opened_at}; open it again, or "
                "keep it open (`with ... as ...:`) for as long as you use it."
            )

    def end(self) -> bool:
        """Mark the resource closed; False if it was closed before."""
        was_open, self.is_open = self.is_open, False
        return was_open

    def warn_if_open(self) -> None:
        """Warn of a resource that is dropped without `close()`; for destructors, never raises."""
        if self.is_open and not sys.is_finalizing():
            warnings.warn(
                f"{self.resource}, opened at {self.opened_at}, was never closed",
                ResourceWarning,
                stacklevel=3,
            )


def _caller() -> str:
    """Return `file:line` of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("edgevision."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
