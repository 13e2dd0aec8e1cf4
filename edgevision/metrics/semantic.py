"""Class maps over a folder: mean IoU, and agreement where there are no labels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import PathLike, read_plain
from edgevision.bundle.reading import parse
from edgevision.bundle.tensors import Image
from edgevision.errors import FileReadError
from edgevision.metrics.labels import LabelValues, renumbered_reason
from edgevision.metrics.metric import FolderTruths, Metric, Score
from edgevision.metrics.segmentation import ConfusionMatrix, counted_pairs, resize_nearest
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress
from edgevision.tasks.camera import VOID
from edgevision.tasks.frames import Colors, label_colors, read_labels
from edgevision.tasks.labelled import CLASS_MAPS, readable_pictures
from edgevision.tasks.semantic import SemanticDecoder, SemanticResult

_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SemanticScore(Score):
    """How one form of a net does on a folder.

    Attributes:
        miou: mean IoU over the classes that occur; None without labels.
        pixel_accuracy: share of labelled pixels that are right; None without labels.
        iou: IoU per class, NaN where a class does not occur; empty without labels.
        agreement: share of pixels where it says what the first form says; None without one.
    """

    miou: float | None
    pixel_accuracy: float | None
    iou: tuple[float, ...]
    agreement: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "mIoU": self.miou,
            "pixel accuracy": self.pixel_accuracy,
            "agrees with reference": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return the IoU of each class, NaN where it does not occur."""
        return self.iou


class SemanticTruths(FolderTruths):
    """Class maps in `labels/`, PNG of class indices, of the pictures in `images/`; or none.

    Other layouts: see `labelled_images`. Where the files have other numbers than the classes,
    `labels.json` says which: `{"classes": {"7": 0, "8": 1}}`; others are void.
    """

    def __init__(
        self,
        folder: PathLike,
        class_count: int,
        colors: Colors | None,
        label_map: Mapping[str, int] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(folder, *CLASS_MAPS)
        numbers = {int(k): v for k, v in (label_map or {}).items() if k.isdecimal()}
        own = {_rgb(k): v for k, v in (label_map or {}).items() if not k.isdecimal()}
        self._class_count, self._colors = class_count, own or colors
        self._numbers = _numbers(Path(folder) / "labels.json", class_count, numbers)
        if ignore_index is not None:
            self._numbers[ignore_index] = VOID

    def check(self, progress: Progress) -> None:
        """Leave out what cannot be read, refuse labels that say nothing; see `Truths`."""
        values = LabelValues(self._class_count)

        def count(name: str) -> None:
            if (label := self._read(name)) is not None:
                values.add(label)

        self.pictures = readable_pictures(self.pictures, progress, count)
        place = self.files[next(reversed(self.pictures))]
        if place is not None:
            if values.refusal_reason() and (found := label_colors(place)):
                raise FileReadError(
                    f"{place.parent}: the labels cannot be scored: they are in colours, which are "
                    f"not those of the classes: {place.name} has {found}. Build with --label-map "
                    "'#RRGGBB=CLASS,...' (label_map=), or write the colours behind the classes"
                )
            _refuse(values, f"{place.parent}: ")

    def of(self, name: str, size: tuple[int, int]) -> Image | None:
        """Return a picture's class map `uint8[h, w]`; see `Truths`."""
        truth = self._read(name)
        if truth is not None and truth.shape == size[::-1] != size:
            raise FileReadError(
                f"{self.files[name]}: {list(truth.shape)} pixels, and its picture {list(size)}: "
                "one of them is turned. Pictures are turned as their EXIF orientation says; turn "
                "the label map as well"
            )
        return truth

    def _read(self, name: str) -> Image | None:
        label = self.file(name)
        return None if label is None else read_labels(label, self._colors, self._numbers)


class SemanticMetric(Metric):
    """Confusion matrices, of the truth and of the first form.

    A folder holds `images/` and `labels/` (an index beyond the classes is void), or images alone:
    then there is agreement and no mIoU. Predictions are resized to the labels by nearest neighbour.
    """

    def __init__(
        self,
        class_count: int,
        colors: Colors | None = None,
        label_map: Mapping[str, int] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        self._class_count, self._colors = class_count, colors
        self._read_by = label_map, ignore_index

    def truths(self, folder: PathLike) -> SemanticTruths:
        """Return the class maps of `folder`; see `Metric`."""
        return SemanticTruths(folder, self._class_count, self._colors, *self._read_by)

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: Image | None,
        found: SemanticResult,
        first: SemanticResult | None,
    ) -> None:
        """Count one frame's pixels; see `Metric`."""
        count, mask = self._class_count, found.mask
        if first is not None:
            tally.count("pixels", mask.size)
            tally.count("same", np.count_nonzero(mask == first.mask))
        if first is not None and first is not found:
            tally.count("against", counted_pairs(first.mask, mask, count))
        if truth is None:
            return
        tally.count("values", np.bincount(truth.ravel(), minlength=256))
        resized = resize_nearest(mask, truth.shape)
        if count <= VOID:  # what was not looked at is not scored
            truth = np.where(resized == VOID, np.uint8(VOID), truth)
        tally.count("matrix", counted_pairs(truth, resized, count))

    def score(self, form: str, tally: Tally) -> SemanticScore:
        """Return mean IoU and agreement; see `Metric`."""
        pixels, values = tally.number("pixels"), tally.counts("values")
        agreement = tally.number("same") / pixels if pixels else None
        if not values.any():
            return SemanticScore(form, None, None, (), agreement)
        labels = LabelValues(self._class_count, values)
        _refuse(labels)
        if doubt := labels.doubt_reason():
            warnings.warn(f"the labels may not be what they should: {doubt}", stacklevel=3)
        matrix = ConfusionMatrix(self._class_count, tally.counts("matrix"))
        if doubt := renumbered_reason(matrix.counts):
            warnings.warn(doubt, stacklevel=3)
        return SemanticScore(
            form, matrix.miou(), matrix.pixel_accuracy(), tuple(matrix.iou()), agreement
        )

    def against(self, tally: Tally) -> npt.NDArray[np.int64] | None:
        """Return the pixels of each class of the first form by class of this one; see `Metric`."""
        found = tally.counts("against")
        return found[:, :-1] if found.ndim else None


def metric(decoder: SemanticDecoder) -> SemanticMetric:
    """Return the metric of a net; see `Metric`."""
    colors = {_rgb(label.color): index for index, label in enumerate(decoder.classes)}
    return SemanticMetric(len(decoder.classes), colors, decoder.label_map, decoder.ignore_index)


def _numbers(path: Path, class_count: int, given: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """Return the class of each number in the label files; `labels.json` comes before `given`."""
    table = np.arange(256, dtype=np.uint8)
    if not os.path.lexists(path):
        return _table(given) if given else table
    try:
        content: Any = parse(read_plain(path, max_bytes=_MAX_JSON_BYTES, follow_links=True))
        found = {int(k): int(v) for k, v in content["classes"].items()}
        if not found or not all(0 <= k < 256 and 0 <= v < class_count for k, v in found.items()):
            raise ValueError(f"numbers are 0 to 255, classes 0 to {class_count - 1}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FileReadError(
            f'{path}: {error}; expected the class of each number, {{"classes": {{"7": 0, "8": 1}}}}'
        ) from error
    return _table(found)


def _table(given: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    table = np.full(256, VOID, np.uint8)
    table[list(given)] = list(given.values())
    return table


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _refuse(values: LabelValues, place: str = "") -> None:
    if reason := values.refusal_reason():
        raise FileReadError(f"{place}the labels cannot be scored: {reason}")
