"""Scales and levels of INT8: numbers that float16 holds exactly, weights by output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVELS = 127
# A scale must survive float16, whose numbers below 2**-14 lose digits one by one.
_SMALLEST_SCALE = 2.0**-18


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
    """Round weights to levels, each output channel by its largest."""
    wide = weights.astype(np.float64)
    others = tuple(i for i in range(wide.ndim) if i != axis)
    scales = half_up(np.abs(wide).max(axis=others) / LEVELS)
    shape = [-1 if i == axis else 1 for i in range(wide.ndim)]
    values = np.rint(wide / scales.astype(np.float64).reshape(shape))
    return Levels(values.clip(-LEVELS, LEVELS).astype(np.int8), scales, axis)
