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
        cpu_threads: of ONNX Runtime on the CPU; 0 takes every core. One leaves the others to your
            control loop, and is faster for models of a few hundred microseconds.
    """

    slots: int = 1
    graph: bool = True
    spin: bool = False
    priority: int = 0
    timing: bool = True
    cpu_threads: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        if not 1 <= self.slots <= 64:
            raise ValueError(f"slots: got {self.slots}, expected 1 to 64")
        if not 0 <= self.cpu_threads <= 1024:
            raise ValueError(f"cpu_threads: got {self.cpu_threads}, expected 0 to 1024")
