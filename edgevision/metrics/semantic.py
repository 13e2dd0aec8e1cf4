"""Class maps over a folder: mean IoU, and agreement where there are no labels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import read_plain
from edgevision.bundle.reading import parse
from edgevision.errors import FileReadError
from edgevision.metrics.labels import LabelValues
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.metrics.segmentation import ConfusionMatrix, resize_nearest
from edgevision.progress import Progress, silent
from edgevision.tasks.camera import VOID
from edgevision.tasks.frames import Colors, read_image, read_labels, resize
from edgevision.tasks.labelled import labelled_images, readable_ones
from edgevision.tasks.semantic import SemanticDecoder

Image = npt.NDArray[np.uint8]

_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SemanticScore:
    """How one form of a net does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        miou: mean IoU over the classes that occur; None without labels.
        pixel_accuracy: share of labelled pixels that are right; None without labels.
        iou: IoU per class, NaN where a class does not occur; empty without labels.
        agreement: share of pixels where it says what the first form says.
    """

    form: str
    miou: float | None
    pixel_accuracy: float | None
    iou: tuple[float, ...]
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "mIoU": self.miou,
            "pixel accuracy": self.pixel_accuracy,
            "agrees with torch": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return the IoU of each class, NaN where it does not occur."""
        return self.iou


def score_folder(
    decoder: SemanticDecoder, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_semantic`."""
    return list(
        evaluate_semantic(
            {form: _class_map(predict) for form, predict in forms.items()},
            folder,
            class_count=len(decoder.classes),
            frame_size=decoder.camera.size,
            colors={_rgb(label.color): index for index, label in enumerate(decoder.classes)},
            progress=progress,
        )
    )


def evaluate_semantic(
    forms: Mapping[str, Callable[[Image], Image]],
    folder: str | os.PathLike[str],
    *,
    class_count: int,
    frame_size: tuple[int, int],
    colors: Colors | None = None,
    progress: Progress = silent,
) -> list[SemanticScore]:
    """Score each form on every image of `folder`; the first form is what the others agree with.

    `folder` holds `images/` and `labels/` (PNG of class indices, an index beyond the classes is
    void), is laid out as one of the usual data sets, or holds only images: then there is agreement
    and no mIoU. Where the files have other numbers than the classes, `labels.json` in `folder` says
    which: `{"classes": {"7": 0, "8": 1}}`; others are void. Frames are resized to `frame_size`,
    predictions to the labels by nearest neighbour.

    The labels are read before any form runs: those that cannot be meant so are refused, and what a
    reader of the scores should know of them is warned of. What cannot be read is left out, and
    counted.

    Args:
        forms: what is scored, by name.
        folder: see above.
        class_count: how many classes there are.
        frame_size: (H, W) that the forms take.
        colors: the class of each colour, for label maps in colours.
        progress: told how far it is.

    Raises:
        FileReadError: the folder is empty, no image has a label, one is turned, or no score of
            these labels would say anything.
    """
    numbers = _numbers(Path(folder) / "labels.json", class_count)

    def read(label: Path) -> Image:
        found: Image = numbers[read_labels(label, colors)]
        return found

    pairs = readable_ones(
        labelled_images(folder), lambda pair: (read_image(pair[0]), pair[1] and read(pair[1]))
    )
    labels = [label for _, label in pairs if label is not None]
    if labels:
        _look_at(labels, read, class_count, progress)
    scores = {form: ConfusionMatrix(class_count) for form in forms}
    same = dict.fromkeys(forms, 0)
    for done, (image, label) in enumerate(pairs):
        progress("evaluating", done, len(pairs))
        picture = read_image(image)
        frame = resize(picture, frame_size)
        truth = read(label) if label else None
        if truth is not None and truth.shape == picture.shape[1::-1] != picture.shape[:2]:
            raise FileReadError(
                f"{label}: {list(truth.shape)} pixels, and its picture "
                f"{list(picture.shape[:2])}: one of them is turned. Pictures are turned as their "
                "EXIF orientation says; turn the label map as well"
            )
        first: Image | None = None
        for form, predict in forms.items():
            mask = predict(frame)
            first = mask if first is None else first
            same[form] += int(np.count_nonzero(mask == first))
            if truth is not None:
                found = resize_nearest(mask, truth.shape)
                if class_count <= VOID:  # what was not looked at is not scored
                    truth = np.where(found == VOID, np.uint8(VOID), truth)
                scores[form].add(truth, found)
    progress("evaluating", len(pairs), len(pairs))
    pixels = len(pairs) * frame_size[0] * frame_size[1]
    return [
        SemanticScore(
            form=form,
            miou=score.miou() if labels else None,
            pixel_accuracy=score.pixel_accuracy() if labels else None,
            iou=tuple(score.iou()) if labels else (),
            agreement=same[form] / pixels,
        )
        for form, score in scores.items()
    ]


def _numbers(path: Path, class_count: int) -> npt.NDArray[np.uint8]:
    """Return the class of each number in the label files: itself, if `labels.json` is not there."""
    table = np.arange(256, dtype=np.uint8)
    if not os.path.lexists(path):
        return table
    try:
        content: Any = parse(read_plain(path, max_bytes=_MAX_JSON_BYTES, follow_links=True))
        given = {int(k): int(v) for k, v in content["classes"].items()}
        if not given or not all(0 <= k < 256 and 0 <= v < class_count for k, v in given.items()):
            raise ValueError(f"numbers are 0 to 255, classes 0 to {class_count - 1}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FileReadError(
            f'{path}: {error}; expected the class of each number, {{"classes": {{"7": 0, "8": 1}}}}'
        ) from error
    table[:] = VOID
    table[list(given)] = list(given.values())
    return table


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _look_at(
    labels: Sequence[Path], read: Callable[[Path], Image], class_count: int, progress: Progress
) -> None:
    """Refuse labels that no score can be made of; warn of those that may not be meant so."""
    values = LabelValues(class_count)
    for done, label in enumerate(labels):
        progress("reading labels", done, len(labels))
        values.add(read(label))
    folder = labels[0].parent
    if (fault := values.fault()) is not None:
        raise FileReadError(f"{folder}: the labels cannot be scored: {fault}")
    if (doubt := values.doubt()) is not None:
        warnings.warn(f"{folder}: the labels may not be what they should: {doubt}", stacklevel=3)


def _class_map(predict: Predict) -> Callable[[Image], Image]:
    def class_map(pixels: Image) -> Image:
        found: Image = predict(pixels).mask
        return found

    return class_map
