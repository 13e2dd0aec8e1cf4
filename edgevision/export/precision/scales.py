"""Scales and levels of INT8: numbers that float16 holds exactly, weights by output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVELS = 127
# A scale must survive float16, whose numbers below 2**-14 lose digits one by one.
_SMALLEST_SCALE = 2.0**-18
_CLIPS = np.linspace(1, 0.76, 7)
"""Of the largest weight in a channel: what is tried for 127."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Stored weights in INT8.

    Attributes:
        values: int8, of the weights' shape.
        scales: float32[channels], exact in float16.
        axis: of the output channels.
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return what the levels stand for."""
        shape = [-1 if i == self.axis else 1 for i in range(self.values.ndim)]
        return self.values.astype(np.float32) * self.scales.reshape(shape)


def scale_of(magnitude: float) -> float:
    """Return the scale with which 127 stands for `magnitude`, or a little more."""
    return float(half_up(np.array(magnitude / LEVELS)))


def half_up(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the next float16 numbers not below `scale`, as float32: the same in both rests."""
    scale = np.maximum(scale, _SMALLEST_SCALE)
    half = scale.astype(np.float16)
    half = np.where(half.astype(np.float64) < scale, np.nextafter(half, np.float16(np.inf)), half)
    return half.astype(np.float32)


def levels_of(weights: npt.NDArray[np.generic], axis: int) -> Levels:
    """Round weights to levels; each output channel is clipped where that costs least squared error.

    The largest weight of a channel is rarely worth the digits of all others, and among few weights
    a scale a little smaller may happen to fit.
    """
    rows = np.moveaxis(np.asarray(weights, np.float64), axis, 0)
    flat = rows.reshape(len(rows), -1)
    largest = np.abs(flat).max(axis=1)
    best = np.full(len(flat), np.inf)
    scales = np.zeros(len(flat), np.float32)
    values = np.zeros(flat.shape, np.int8)
    for share in _CLIPS:
        tried = half_up(largest * share / LEVELS)
        wide = tried.astype(np.float64)[:, None]
        levels = np.rint(flat / wide).clip(-LEVELS, LEVELS)
        errors = ((levels * wide - flat) ** 2).sum(axis=1)
        better = errors < best
        best[better], scales[better] = errors[better], tried[better]
        values[better] = levels[better]
    return Levels(np.moveaxis(values.reshape(rows.shape), 0, axis), scales, axis)
