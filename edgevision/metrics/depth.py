"""Depth over a folder: AbsRel, RMSE and delta < 1.25, and agreement where there are no labels.

Source: Eigen et al. 2014, "Depth Map Prediction from a Single Image using a Multi-Scale Deep
Network", section 4.1; over all labelled pixels of the folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import open_plain, read_plain
from edgevision.bundle.reading import parse
from edgevision.errors import FileReadError
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.metrics.segmentation import resize_nearest
from edgevision.progress import Progress, silent
from edgevision.tasks.depth import DepthDecoder
from edgevision.tasks.frames import read_counts, read_image, resize
from edgevision.tasks.labelled import labelled_images, readable_ones
from edgevision.tasks.tensors import read_npy

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_DELTA = 1.25
_SAME = 0.01
_MIN_M = 1e-3
_MAX_ARRAY_BYTES = 512 << 20
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DepthScore:
    """How one form of a net does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        abs_rel: mean of |depth - truth| / truth; None without labels.
        rmse_m: root of the mean squared error in metres; None without labels.
        delta: share of pixels whose depth and truth are less than 1.25 times apart; None without
            labels.
        agreement: share of pixels within a hundredth of what the first form says.
    """

    form: str
    abs_rel: float | None
    rmse_m: float | None
    delta: float | None
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "AbsRel": self.abs_rel,
            "RMSE m": self.rmse_m,
            "delta<1.25": self.delta,
            "within 1 % of torch": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return nothing: depths have no classes."""
        return ()


@dataclass(slots=True)
class DepthErrors:
    """Sums over any number of depth maps."""

    pixels: int = 0
    relative: float = 0.0
    squared: float = 0.0
    near: int = 0

    def add(self, truth: Floats, predicted: Floats) -> None:
        """Count one pair of maps in metres; where `truth` is 0 there is no label.

        Raises:
            ValueError: the shapes differ.
        """
        if truth.shape != predicted.shape:
            raise ValueError(
                f"truth is {truth.shape}, predicted {predicted.shape}: resize it first"
            )
        known = np.isfinite(truth) & (truth > 0)
        wanted, found = (side[known].astype(np.float64) for side in (truth, predicted))
        distance = np.abs(found - wanted)
        # A depth of 0 is infinitely many times nearer than any truth: bounded, and wrong.
        found = np.maximum(found, _MIN_M)
        self.pixels += wanted.size
        self.relative += float((distance / wanted).sum())
        self.squared += float((distance**2).sum())
        ratio = np.maximum(found / wanted, wanted / found)
        self.near += int(np.count_nonzero(ratio < _DELTA))

    def abs_rel(self) -> float:
        """Mean of |depth - truth| / truth; NaN without a labelled pixel."""
        return self.relative / self.pixels if self.pixels else math.nan

    def rmse_m(self) -> float:
        """Root of the mean squared error in metres; NaN without a labelled pixel."""
        return math.sqrt(self.squared / self.pixels) if self.pixels else math.nan

    def delta(self) -> float:
        """Share of pixels less than 1.25 times apart; NaN without a labelled pixel."""
        return self.near / self.pixels if self.pixels else math.nan


def score_folder(
    decoder: DepthDecoder, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_depth`."""
    size = decoder.camera.size
    predicts = {form: _depth_map(predict) for form, predict in forms.items()}
    return list(evaluate_depth(predicts, folder, frame_size=size, progress=progress))


def evaluate_depth(
    forms: Mapping[str, Callable[[Image], Floats]],
    folder: str | os.PathLike[str],
    *,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[DepthScore]:
    """Score each form on every picture of `folder`; the first form is what the others agree with.

    `folder` holds `images/` and `labels/`, or pictures only: then there is agreement and no AbsRel.
    A label is NAME.npy, float[H, W] in metres, or NAME.png of 16 bits, whose unit `labels.json`
    gives: `{"metres_per_count": 0.00390625}` for KITTI's 1/256. 0 means no label. Frames are
    resized to `frame_size`, predictions to the labels by nearest neighbour.

    Raises:
        FileReadError: the folder is empty, a picture has no label, or a label cannot be read.
    """
    pairs = labelled_images(folder, suffixes=(".npy", ".png"))
    has_labels = pairs[0][1] is not None
    counted = [label for _, label in pairs if label is not None and label.suffix == ".png"]
    unit_m = _metres_per_count(Path(folder) / "labels.json") if counted else 1.0

    def read(label: Path | None) -> Floats | None:
        return None if label is None else read_depth(label, unit_m)

    errors = {form: DepthErrors() for form in forms}
    pairs = readable_ones(pairs, lambda pair: (read_image(pair[0]), read(pair[1])))
    same, pixels = dict.fromkeys(forms, 0), 0
    for done, (image, label) in enumerate(pairs):
        progress("evaluating", done, len(pairs))
        frame = resize(read_image(image), frame_size)
        truth = read(label)
        first: Floats | None = None
        for form, predict in forms.items():
            depth = predict(frame)
            first = depth if first is None else first
            same[form] += int(np.count_nonzero(np.abs(depth - first) <= _SAME * first))
            if truth is not None:
                errors[form].add(truth, resize_nearest(depth, truth.shape))
        pixels += frame_size[0] * frame_size[1]
    progress("evaluating", len(pairs), len(pairs))
    return [
        DepthScore(
            form,
            abs_rel=found.abs_rel() if has_labels else None,
            rmse_m=found.rmse_m() if has_labels else None,
            delta=found.delta() if has_labels else None,
            agreement=same[form] / pixels,
        )
        for form, found in errors.items()
    ]


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


def _depth_map(predict: Predict) -> Callable[[Image], Floats]:
    def depth_map(pixels: Image) -> Floats:
        found: Floats = predict(pixels).depth
        return found

    return depth_map
