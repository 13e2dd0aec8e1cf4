"""How long frames took, as a histogram that merges: 16 steps an octave, from a microsecond on."""

from __future__ import annotations

import math

import numpy as np

from edgevision.metrics.tally import Tally

_STEPS = 16
_NAME = "latency"


def count_latency(tally: Tally, latency_ms: float) -> None:
    """Count one frame."""
    step = math.floor(_STEPS * math.log2(max(latency_ms * 1e3, 1.0)))
    tally.count(_NAME, np.bincount([step]))


def latency_ms(tally: Tally, share: float) -> float:
    """Return a time within which `share` of the frames were done, at most 4.5 % too long.

    NaN where nothing was counted.
    """
    counts = np.atleast_1d(tally.counts(_NAME))
    if not counts.any():
        return math.nan
    step = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return float(2 ** ((step + 1) / _STEPS) / 1e3)
