"""How often each magnitude occurs in a tensor, and the range for INT8 that follows from it.

A bin is the leading bits of a float32, exponent and seven more: at most 0.8 % wide at any size, so
that no range need be known before, and frames may come in any order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import Array
from edgevision.export.precision.scales import LEVELS, half_up

_BITS = 16
"""What is cut off each float32."""
_BINS = 0x7F800000 >> _BITS
_CHUNK = 1 << 16
"""Values that are counted at once: their bins stay in the cache."""
_MAX_COUNTED = 1 << 18
"""Of one tensor in one frame."""
_LINEAR_BINS, _LINEAR_STEP = 1024, 8
_TINY = 1e-12
_PERCENTILE = 99.999
_PERCENTS = (99.99, _PERCENTILE)
_ALIKE = 0.93
"""Two ranges nearer than this differ by less than a decibel."""
# A range is at least this part of the largest value, in steps of a twelfth of an octave.
_NARROWEST, _STEPS_OF_OCTAVE = 2.0**-6, 12
# Below so many steps the bins tell one level from the next; above, errors are spread evenly.
_TOLD_APART = 16
_STARTS = np.arange(_BINS + 1, dtype=np.uint32) << _BITS
_EDGES = _STARTS.view(np.float32)
_CENTRES = (_STARTS[:-1] + (1 << (_BITS - 1))).view(np.float32)
_CENTRES[0] = 0.0


def _divergence(counts: npt.NDArray[np.float64], end: int) -> float:
    """Return by how much levels over `counts[:end]` fall short of all counts (Kullback-Leibler)."""
    inside = counts[:end]
    wanted = inside.copy()
    wanted[-1] += counts[end:].sum()
    starts = np.arange(LEVELS) * end // LEVELS
    sizes = np.diff(np.append(starts, end))
    seen = inside > 0
    bins = np.add.reduceat(seen.astype(np.float64), starts)
    merged = np.repeat(np.add.reduceat(inside, starts) / np.maximum(bins, 1), sizes) * seen
    wanted, merged = wanted / wanted.sum(), merged / max(merged.sum(), _TINY) + _TINY
    there = wanted > 0
    return float((wanted[there] * np.log(wanted[there] / merged[there])).sum())


class Histogram:
    """Counts of magnitudes, and the largest."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.largest = 0.0
        self._added = 0

    def add(self, values: Array, largest: float) -> None:
        """Count float32 `values`, whose largest magnitude is `largest`.

        Of very many every k-th row is counted; the rows are others with each call.
        """
        self.largest = max(self.largest, largest)
        every = -(-values.size // _MAX_COUNTED)
        if every > 1:
            values = values.reshape(-1, values.shape[-1])[self._added % every :: every]
        self._added += 1
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        for start in range(0, bits.size, _CHUNK):
            bins = (bits[start : start + _CHUNK] & np.uint32(0x7FFFFFFF)) >> np.uint32(_BITS)
            found = np.bincount(bins)
            self.counts[: found.size] += found

    def percentile(self, percent: float = _PERCENTILE) -> float:
        """Return the magnitude that `percent` of all values do not exceed."""
        share = np.cumsum(self.counts) / self.counts.sum()
        bin_index = int(np.searchsorted(share, percent / 100))
        return min(float(_EDGES[bin_index + 1]), self.largest)

    def entropy(self) -> float:
        """Return the magnitude at which levels tell least less than the values, by divergence.

        Migacz 2017, "8-bit inference with TensorRT": of a range of linear bins the levels are what
        is left when bins are merged; values beyond the range count at its end.
        """
        edges = np.linspace(0, self.largest, _LINEAR_BINS + 1)
        below = np.concatenate([[0], np.cumsum(self.counts)])
        counts = np.diff(np.interp(edges, _EDGES, below))
        # Zeros, which are exact in any range, say nothing of it.
        counts[0] = counts[1]
        ends = np.arange(LEVELS + 1, _LINEAR_BINS + 1, _LINEAR_STEP)
        best = min((_divergence(counts, int(end)), int(end)) for end in ends)[1]
        return float(edges[best])

    def least_error(self) -> float:
        """Return the magnitude whose rounding and clipping leave the least squared error."""
        octaves = -int(np.log2(_NARROWEST))
        steps = np.arange(octaves * _STEPS_OF_OCTAVE + 1) / _STEPS_OF_OCTAVE
        tops = self.largest * 2.0**-steps
        return float(tops[np.argmin(self.errors(tops))])

    def candidates(self) -> tuple[float, ...]:
        """Return ranges that are worth to be tried, the widest first."""
        found = [self.percentile(percent) for percent in _PERCENTS]
        kept: list[float] = []
        for top in sorted([self.largest, self.least_error(), *found], reverse=True):
            if not kept or top < _ALIKE * kept[-1]:
                kept.append(top)
        return tuple(kept)

    def errors(self, tops: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean squared error that INT8 makes where 127 stands for each of `tops`."""
        seen = np.flatnonzero(self.counts)
        values, counts = _CENTRES[seen].astype(np.float64), self.counts[seen]
        found = np.empty(len(tops))
        for i, step in enumerate(half_up(tops / LEVELS).astype(np.float64)):
            low, high = np.searchsorted(values, [_TOLD_APART * step, LEVELS * step])
            fine = values[:low] - step * np.rint(values[:low] / step)
            over = values[high:] - LEVELS * step
            found[i] = (
                counts[:low] @ fine**2
                + counts[low:high].sum() * step**2 / 12
                + counts[high:] @ over**2
            )
        found /= counts.sum()
        return found
