"""Ranges of activations from typical frames, one frame in memory at a time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision._optional import require
from edgevision.errors import ExportError
from edgevision.export.adapter import Array, Feeds
from edgevision.export.observe import Profiles, observe
from edgevision.progress import Progress, silent

METHODS = ("percentile", "entropy", "minmax")
FEW_SAMPLES = 16
_BINS = 2048
_PERCENTILE = 99.999


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

    Percentile and entropy are ONNX Runtime's own collectors, fed frame by frame.

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
    calibrate = require("onnxruntime.quantization.calibrate", extra="export")
    collector = calibrate.HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=_BINS,
        num_quantized_bins=128,
        percentile=_PERCENTILE,
        scenario="same",
    )
    seen = False
    # The collectors print what they do.
    with contextlib.redirect_stdout(io.StringIO()):
        for values in observe(model, tensors, feeds, profiles):
            for name, value in values.items():
                _magnitude(name, value)
            collector.collect({name: [value] for name, value in values.items()})
            seen = True
        found = collector.compute_collection_result() if seen else {}
    return {name: float(max(abs(low), abs(high))) for name, (low, high, *_) in found.items()}


def _magnitude(name: str, value: Array) -> float:
    largest = float(np.abs(value).max(initial=0))
    if not np.isfinite(largest):
        raise ExportError(
            f"tensor '{name}' holds values that are not finite on a calibration sample; look at "
            "that sample and at the FP32 net"
        )
    return largest
