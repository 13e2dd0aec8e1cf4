"""Depth over a folder: AbsRel, RMSE and delta < 1.25, and agreement where there are no labels.

Source: Eigen et al. 2014, "Depth Map Prediction from a Single Image using a Multi-Scale Deep
Network", section 4.1; over all labelled pixels of the folder.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.bundle.files import PathLike, open_plain, read_plain
from edgevision.bundle.reading import parse
from edgevision.bundle.tensors import Floats
from edgevision.errors import FileReadError
from edgevision.metrics.metric import FolderTruths, Metric, Score
from edgevision.metrics.segmentation import resize_nearest
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress
from edgevision.tasks.depth import DepthDecoder, DepthResult
from edgevision.tasks.frames import read_counts
from edgevision.tasks.labelled import readable_pictures
from edgevision.tasks.tensors import read_npy

_DELTA = 1.25
_SAME = 0.01
_MIN_M = 1e-3
_MAX_ARRAY_BYTES = 512 << 20
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DepthScore(Score):
    """How one form of a net does on a folder.

    Attributes:
        abs_rel: mean of |depth - truth| / truth; None without labels.
        rmse_m: root of the mean squared error in metres; None without labels.
        delta: share of pixels whose depth and truth are less than 1.25 times apart; None without
            labels.
        agreement: share of pixels within a hundredth of what the first form says; None without
            one.
    """

    abs_rel: float | None
    rmse_m: float | None
    delta: float | None
    agreement: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "AbsRel": self.abs_rel,
            "RMSE m": self.rmse_m,
            "delta<1.25": self.delta,
            "within 1 % of reference": self.agreement,
        }


class DepthTruths(FolderTruths):
    """Depth maps in `labels/` of the pictures in `images/`; or none.

    A label is NAME.npy, float[H, W] in metres, or NAME.png of 16 bits, whose unit `labels.json`
    gives: `{"metres_per_count": 0.00390625}` for KITTI's 1/256. 0 means no label.
    """

    def __init__(self, folder: PathLike) -> None:
        super().__init__(folder, ".npy", ".png")
        counted = any(label.suffix == ".png" for label in self.sources())
        self._unit_m = _metres_per_count(Path(folder) / "labels.json") if counted else 1.0

    def check(self, progress: Progress) -> None:
        """Leave out what cannot be read; see `Truths`."""
        self.pictures = readable_pictures(self.pictures, progress, self._read)

    def of(self, name: str, size: tuple[int, int]) -> Floats | None:
        """Return a picture's depth in metres; see `Truths`."""
        return self._read(name)

    def _read(self, name: str) -> Floats | None:
        label = self.file(name)
        return None if label is None else read_depth(label, self._unit_m)


class DepthMetric(Metric):
    """Errors of labelled pixels, and pixels within a hundredth of the first form's.

    Predictions are resized to the labels by nearest neighbour.
    """

    def truths(self, folder: PathLike) -> DepthTruths:
        """Return the depth maps of `folder`; see `Metric`."""
        return DepthTruths(folder)

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: Floats | None,
        found: DepthResult,
        first: DepthResult | None,
    ) -> None:
        """Count one frame's pixels; see `Metric`."""
        depth = found.depth
        if first is not None:
            tally.count("compared", depth.size)
            near = np.abs(depth - first.depth) <= _SAME * first.depth
            tally.count("same", np.count_nonzero(near))
        if truth is not None:
            tally.count("labelled", 1)
            _count_errors(tally, truth, resize_nearest(depth, truth.shape))

    def score(self, form: str, tally: Tally) -> DepthScore:
        """Return means over all labelled pixels, NaN where no pixel is; see `Metric`."""
        compared, pixels = tally.number("compared"), tally.number("pixels")
        agreement = tally.number("same") / compared if compared else None
        if not tally.number("labelled"):
            return DepthScore(form, None, None, None, agreement)
        if not pixels:
            return DepthScore(form, math.nan, math.nan, math.nan, agreement)
        return DepthScore(
            form,
            abs_rel=tally.total("relative") / pixels,
            rmse_m=math.sqrt(tally.total("squared") / pixels),
            delta=tally.number("near") / pixels,
            agreement=agreement,
        )


def metric(decoder: DepthDecoder) -> DepthMetric:
    """Return the metric of a net; see `Metric`."""
    return DepthMetric()


def _count_errors(tally: Tally, truth: Floats, predicted: Floats) -> None:
    """Count one pair of maps in metres; where `truth` is 0 there is no label."""
    known = np.isfinite(truth) & (truth > 0)
    wanted, found = (side[known].astype(np.float64) for side in (truth, predicted))
    distance = np.abs(found - wanted)
    # A depth of 0 is infinitely many times nearer than any truth: bounded, and wrong.
    found = np.maximum(found, _MIN_M)
    tally.count("pixels", wanted.size)
    tally.add("relative", float((distance / wanted).sum()))
    tally.add("squared", float((distance**2).sum()))
    ratio = np.maximum(found / wanted, wanted / found)
    tally.count("near", np.count_nonzero(ratio < _DELTA))


def read_depth(path: Path, unit_m: float) -> Floats:
    """Read a label as float32[H, W] in metres.

    Args:
        path: NAME.npy in metres, or a PNG of one 16-bit number a pixel.
        unit_m: metres for each count of a PNG.

    Raises:
        FileReadError: it is neither.
    """
    if path.suffix != ".npy":
        return read_counts(path).astype(np.float32) * np.float32(unit_m)
    try:
        with open_plain(path, max_bytes=_MAX_ARRAY_BYTES, follow_links=True) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            found = read_npy(file, size_bytes, _is_map, "it", "float[H, W] in metres")
    except (OSError, ValueError, EOFError) as error:
        raise FileReadError(f"{path}: cannot be read as an array: {error!s:.300}") from error
    return found.astype(np.float32)


def _is_map(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(shape) == 2 and dtype.kind == "f"


def _metres_per_count(path: Path) -> float:
    try:
        given: Any = parse(read_plain(path, max_bytes=_MAX_JSON_BYTES, follow_links=True))
        unit_m = given["metres_per_count"]
        if not (isinstance(unit_m, int | float) and 0 < unit_m < math.inf):
            raise ValueError(f"metres_per_count is {unit_m!r:.40}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileReadError(
            f"{path}: {error}. 16-bit labels need their unit: write "
            '{"metres_per_count": 0.00390625} into it for 1/256 m.'
        ) from error
    return float(unit_m)
