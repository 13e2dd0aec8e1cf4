"""The task's metric over a labelled folder, for any function from frame to class map."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.errors import FileReadError
from edgevision.metrics.segmentation import ConfusionMatrix
from edgevision.progress import Progress, silent
from edgevision.runtime.frames import list_images, read_image, read_labels, resize

Image = npt.NDArray[np.uint8]
Predict = Callable[[Image], Image]
"""From frame uint8[H, W, 3] RGB to class map uint8[H, W]."""


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


def evaluate_semantic(
    forms: Mapping[str, Predict],
    folder: str | os.PathLike[str],
    *,
    class_count: int,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[SemanticScore]:
    """Score each form on every image of `folder`; the first form is what the others agree with.

    `folder` holds `images/` and `labels/` (PNG of class indices, an index beyond the classes is
    void), or images alone: then there is agreement and no mIoU. Frames are resized to
    `frame_size`, predictions to the labels by nearest neighbour.

    Raises:
        FileReadError: the folder is empty, or an image has no label.
    """
    images, labels = labelled_images(folder)
    scores = {form: ConfusionMatrix(class_count) for form in forms}
    same = dict.fromkeys(forms, 0)
    for done, image in enumerate(images):
        progress("evaluating", done, len(images))
        frame = resize(read_image(image), frame_size)
        truth = read_labels(labels / f"{image.stem}.png") if labels else None
        first: Image | None = None
        for form, predict in forms.items():
            mask = predict(frame)
            first = mask if first is None else first
            same[form] += int(np.count_nonzero(mask == first))
            if truth is not None:
                scores[form].add(truth, _nearest(mask, truth.shape))
    progress("evaluating", len(images), len(images))
    pixels = len(images) * frame_size[0] * frame_size[1]
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


def labelled_images(folder: str | os.PathLike[str]) -> tuple[list[Path], Path | None]:
    """Return a folder's images, and the folder of their labels if there is one.

    Raises:
        FileReadError: the folder is missing or empty, or an image has no label.
    """
    path = Path(folder)
    if not (path / "images").is_dir():
        return list_images(path), None
    images, labels = list_images(path / "images"), path / "labels"
    missing = [image.stem for image in images if not (labels / f"{image.stem}.png").is_file()]
    if missing:
        raise FileReadError(
            f"{labels}: {len(missing)} of {len(images)} images have no label, the first "
            f"'{missing[0]}.png'. Each images/NAME needs labels/NAME.png."
        )
    return images, labels


def _nearest(mask: Image, shape: tuple[int, ...]) -> Image:
    if mask.shape == shape:
        return mask
    rows = (np.arange(shape[0]) * mask.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * mask.shape[1]) // shape[1]
    scaled: Image = mask[rows[:, None], columns]
    return scaled
