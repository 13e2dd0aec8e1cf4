"""A gate that opens once, and that Ctrl-C cannot lock while somebody waits for it.

`threading.Event` can be: who is interrupted on the way into its lock keeps that for ever.
"""

from __future__ import annotations

import threading

_POLL_S = 0.25


class Gate:
    """Closed until `open`, on any thread.

    Attributes:
        is_open: whether it was opened.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let all pass who wait."""
        self.is_open = True
        self._lock.release()

    def wait(self) -> bool:
        """Wait until it is open, for a quarter of a second at most; returns whether it is."""
        if not self.is_open and self._lock.acquire(timeout=_POLL_S):
            self._lock.release()  # to the next; who is interrupted before lets it poll
        return self.is_open
