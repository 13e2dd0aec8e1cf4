"""Ranges of activations from typical frames, one frame in memory at a time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision.bundle.tensors import Array
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, observe
from edgevision.export.precision.histogram import Histogram
from edgevision.progress import Progress, silent

_FINDERS: dict[str, Callable[[Histogram], tuple[float, ...]]] = {
    "auto": lambda histogram: histogram.candidates(),
    "percentile": lambda histogram: (histogram.percentile(),),
    "mse": lambda histogram: (histogram.least_error(),),
    "entropy": lambda histogram: (histogram.entropy(),),
    "minmax": lambda histogram: (histogram.largest,),
}
METHODS = tuple(_FINDERS)
FEW_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """What the scales came from.

    Attributes:
        count: how many samples.
        sha256: of the samples.
        method: how the ranges were found.
        recovery: what was done to the graph to win accuracy back.
    """

    count: int
    sha256: str
    method: str
    recovery: tuple[str, ...] = ()


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Iterable[Feeds],
    *,
    method: str,
    profiles: Profiles,
    progress: Progress = silent,
) -> tuple[dict[str, tuple[float, ...]], CalibrationSummary]:
    """Return the magnitudes that INT8's 127 may stand for, per tensor: one, or several to try.

    Raises:
        ValueError: the method is unknown.
        ExportError: there are no samples, or a sample gives values that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method: got '{method}', expected one of {', '.join(METHODS)}")
    digest, count, flat = hashlib.sha256(), 0, 0
    feeds = list(samples)

    def counted() -> Iterator[Feeds]:
        nonlocal count, flat
        for feed in feeds:
            progress("calibrating", count, len(feeds))
            for name in sorted(feed):
                digest.update(np.ascontiguousarray(feed[name]).tobytes())
            flat += all(np.ptp(np.asarray(array, np.float64)) == 0 for array in feed.values())
            count += 1
            yield feed

    if not tensors:
        return {}, CalibrationSummary(len(list(counted())), digest.hexdigest(), method)
    found = _ranges(model, tensors, counted(), method, profiles)
    if not count:
        raise ExportError("INT8 needs frames to calibrate on, and none were given")
    if count < FEW_SAMPLES or flat:
        dull = f"; {flat} of them are of one colour" if flat else ""
        warnings.warn(
            f"INT8 was calibrated on {count} frames{dull}: 50 or more typical ones are advised",
            UserWarning,
            stacklevel=2,
        )
    return found, CalibrationSummary(count, digest.hexdigest(), method)


def _ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterator[Feeds],
    method: str,
    profiles: Profiles,
) -> dict[str, tuple[float, ...]]:
    histograms = {name: Histogram() for name in tensors}
    for values in observe(model, tensors, feeds, profiles):
        for name, value in values.items():
            histograms[name].add(value, _magnitude(name, value))
    find = _FINDERS[method]
    return {name: find(h) if h.largest > 0 else (0.0,) for name, h in histograms.items()}


def _magnitude(name: str, value: Array) -> float:
    largest = max(float(value.max(initial=0)), -float(value.min(initial=0)))
    if not np.isfinite(largest):
        raise ExportError(
            f"tensor '{name}' holds values that are not finite on a calibration sample; look at "
            "that sample and at the FP32 net"
        )
    return largest
