"""A program that a session and its pipelines use: the last of them closes it."""

from __future__ import annotations

import threading

from edgevision.errors import ClosedError
from edgevision.runtime.backends.program import Program


class SharedProgram:
    """Counts who uses a program, so that it outlives its last execution whoever closes first."""

    def __init__(self, program: Program) -> None:
        """Take over `program`, which is closed once nobody uses it; nobody does yet."""
        self.program = program
        self._users: set[int] = set()
        self._is_closed = False
        # A collected session may leave on a thread that is just leaving.
        self._lock = threading.RLock()

    def join(self, user: object) -> None:
        """Keep the program open until `user` leaves.

        Raises:
            ClosedError: the last user has left.
        """
        with self._lock:
            if self._is_closed:
                raise ClosedError("the model is closed, and so is its program; load it again")
            self._users.add(id(user))

    def leave(self, user: object) -> None:
        """Let go of the program, and close it if nobody else uses it; safe to call twice."""
        with self._lock:
            self._users.discard(id(user))
            if not self._users and not self._is_closed:
                self._is_closed = True
                self.program.close()
