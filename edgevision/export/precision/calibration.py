"""Ranges of activations from typical frames, one frame in memory at a time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision._optional import require
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Array, Feeds
from edgevision.export.graph.observe import Profiles, observe
from edgevision.progress import Progress, silent

METHODS = ("percentile", "entropy", "minmax")
FEW_SAMPLES = 16
_BINS = 2048
_PERCENTILE = 99.999
# Below it lies no scale that INT8 graphs use; a power of two keeps the bins exact.
_SMALLEST_TOP = 2.0**-20


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """What the scales came from: how many samples, their SHA-256, and the method."""

    count: int
    sha256: str
    method: str


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Iterable[Feeds],
    *,
    method: str,
    profiles: Profiles,
    progress: Progress = silent,
) -> tuple[dict[str, float], CalibrationSummary]:
    """Return the magnitude that INT8's 127 shall stand for, per tensor.

    Entropy is found by ONNX Runtime's own search.

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
    ranges = _minmax if method == "minmax" else _histogram
    found = ranges(model, tensors, counted(), method, profiles)
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


def _minmax(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterator[Feeds],
    _method: str,
    profiles: Profiles,
) -> dict[str, float]:
    largest = dict.fromkeys(tensors, 0.0)
    for values in observe(model, tensors, feeds, profiles):
        for name, value in values.items():
            largest[name] = max(largest[name], _magnitude(name, value))
    return largest


def _histogram(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterator[Feeds],
    method: str,
    profiles: Profiles,
) -> dict[str, float]:
    histograms = {name: _Histogram() for name in tensors}
    for values in observe(model, tensors, feeds, profiles):
        for name, value in values.items():
            histograms[name].add(np.abs(value), _magnitude(name, value))
    find = _percentile if method == "percentile" else _entropy
    return {name: find(h) if h.largest > 0 else 0.0 for name, h in histograms.items()}


class _Histogram:
    """Counts of magnitudes from 0 up; its bins widen twofold when a larger one comes.

    ONNX Runtime's collector adds bins of the first frame's width instead: after a faint first frame
    they fill the memory.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.largest = 0.0
        self.top = _SMALLEST_TOP

    def add(self, magnitudes: Array, largest: float) -> None:
        self.largest = max(self.largest, largest)
        while self.top < largest:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self.top *= 2
        self.counts += np.histogram(magnitudes, _BINS, (0, self.top))[0]


def _percentile(histogram: _Histogram) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    bin_index = int(np.searchsorted(share, _PERCENTILE / 100))
    return min((bin_index + 1) / _BINS * histogram.top, histogram.largest)


def _entropy(histogram: _Histogram) -> float:
    calibrate = require("onnxruntime.quantization.calibrate", extra="export")
    collector = calibrate.HistogramCollector("entropy", True, _BINS, 128, _PERCENTILE, "same")
    # It looks for the middle of a distribution with two sides.
    half = histogram.counts.reshape(-1, 2).sum(1)
    counts = np.concatenate([half[::-1], half])
    edges = np.linspace(-histogram.top, histogram.top, _BINS + 1, dtype=np.float32)
    ends = np.array([-histogram.largest, histogram.largest], np.float32)
    low, high = collector.get_entropy_threshold((counts, edges, *ends), 128)[:2]
    return min(max(abs(float(low)), abs(float(high))), histogram.largest)


def _magnitude(name: str, value: Array) -> float:
    largest = float(np.abs(value).max(initial=0))
    if not np.isfinite(largest):
        raise ExportError(
            f"tensor '{name}' holds values that are not finite on a calibration sample; look at "
            "that sample and at the FP32 net"
        )
    return largest
