"""The callback by which long work reports how far it is; who shows it decides how."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with a phase and how much of it is done; must return quickly and never raise."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `phase` are over; `total` 0 means unknown."""


def silent(phase: str, done: int, total: int) -> None:
    """Show nothing."""
