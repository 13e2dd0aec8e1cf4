"""Bias correction: what INT8 takes from a channel on average is added to its bias.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", in its
empirical form: the average is that of calibration frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgevision.export.precision.sensitivity import Noise, Numbers

_LEAST_GAIN = 0.01
"""Of the noise: less is not worth a layer whose bias differs from the float net's."""


def corrected(noise: Noise) -> tuple[Numbers | None, Noise]:
    """Return what to add to a layer's bias, and the noise that is left.

    The noise is measured on each sample with the mean of the samples that are not next to it, so
    that a correction which fits only the frames it came from does not pass. Where it does not lower
    the noise there is none.
    """
    count, channels = noise.mean.shape
    if not channels or count < 2:
        return None, noise
    odd = np.arange(count) % 2 == 1
    of_odd, of_even = noise.mean[odd].mean(axis=0), noise.mean[~odd].mean(axis=0)
    bias = np.where(odd[:, None], of_even, of_odd)
    gained = noise.counts * (2 * bias * noise.mean - bias**2).sum(axis=1)
    left = replace(noise, noise=np.maximum(noise.noise - gained, 0), mean=noise.mean - bias)
    if left.noise.sum() > (1 - _LEAST_GAIN) * noise.noise.sum():
        return None, noise
    return noise.mean.mean(axis=0), left
