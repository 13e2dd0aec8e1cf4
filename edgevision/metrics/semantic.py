"""Class maps over a folder: mean IoU, and agreement where there are no labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.metrics.segmentation import ConfusionMatrix, resize_nearest
from edgevision.progress import Progress, silent
from edgevision.tasks.frames import labelled_images, read_image, read_labels, resize
from edgevision.tasks.semantic import SemanticDecoder

Image = npt.NDArray[np.uint8]


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
            progress=progress,
        )
    )


def evaluate_semantic(
    forms: Mapping[str, Callable[[Image], Image]],
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
    pairs = labelled_images(folder)
    has_labels = pairs[0][1] is not None
    scores = {form: ConfusionMatrix(class_count) for form in forms}
    same = dict.fromkeys(forms, 0)
    for done, (image, label) in enumerate(pairs):
        progress("evaluating", done, len(pairs))
        frame = resize(read_image(image), frame_size)
        truth = read_labels(label) if label else None
        first: Image | None = None
        for form, predict in forms.items():
            mask = predict(frame)
            first = mask if first is None else first
            same[form] += int(np.count_nonzero(mask == first))
            if truth is not None:
                scores[form].add(truth, resize_nearest(mask, truth.shape))
    progress("evaluating", len(pairs), len(pairs))
    pixels = len(pairs) * frame_size[0] * frame_size[1]
    return [
        SemanticScore(
            form=form,
            miou=score.miou() if has_labels else None,
            pixel_accuracy=score.pixel_accuracy() if has_labels else None,
            iou=tuple(score.iou()) if has_labels else (),
            agreement=same[form] / pixels,
        )
        for form, score in scores.items()
    ]


def _class_map(predict: Predict) -> Callable[[Image], Image]:
    def class_map(pixels: Image) -> Image:
        found: Image = predict(pixels).mask
        return found

    return class_map
