"""How long each part of one inference took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Host wall-clock times of one inference, in milliseconds."""

    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float

    @property
    def total_ms(self) -> float:
        """The whole inference."""
        return self.copy_in_ms + self.compute_ms + self.copy_out_ms
