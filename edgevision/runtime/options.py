"""How a model is run: the few choices that a user may have to make."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Choices made at load; the defaults suit most.

    Attributes:
        slots: how many threads may run the model at once; each slot has its own buffers.
        graph: launch captured CUDA graphs where that is possible.
        spin: wait with a busy core for the lowest latency; otherwise the thread sleeps.
        priority: of the streams; lower goes first.
        timing: measure copies and compute by device events.
    """

    slots: int = 1
    graph: bool = True
    spin: bool = False
    priority: int = 0
    timing: bool = True

    def __post_init__(self) -> None:
        """Check the fields."""
        if not 1 <= self.slots <= 64:
            raise ValueError(f"slots: got {self.slots}, expected 1 to 64")
