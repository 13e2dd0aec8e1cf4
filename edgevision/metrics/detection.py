"""Boxes over a folder: average precision by the COCO protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.metrics.average_precision import Detections, DetectionScore
from edgevision.metrics.coco import read_objects
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.progress import Progress, silent
from edgevision.tasks.detection import DetectionDecoder, DetectionResult
from edgevision.tasks.frames import read_image, resize

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BoxScore:
    """How one form of a detector does on a folder, by the COCO protocol.

    Attributes:
        form: which form, e.g. "int8".
        box_ap: average precision of the boxes, 0 to 1.
        box_ap50: at IoU 0.50.
        class_box_ap: `box_ap` per class, NaN where a class does not occur.
    """

    form: str
    box_ap: float
    box_ap50: float
    class_box_ap: tuple[float, ...]

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {"box AP": self.box_ap, "box AP50": self.box_ap50}

    def per_class(self) -> tuple[float, ...]:
        """Return the box AP of each class, NaN where it does not occur."""
        return self.class_box_ap


def score_folder(
    decoder: DetectionDecoder, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_boxes`."""
    classes = [label.name for label in decoder.classes]
    size = decoder.camera.size
    return list(evaluate_boxes(forms, folder, classes=classes, frame_size=size, progress=progress))


def evaluate_boxes(
    forms: Mapping[str, Callable[[Image], DetectionResult]],
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[BoxScore]:
    """Score each form on every picture of `folder`, see `coco`.

    Frames are resized to `frame_size`, detections back to the picture.

    Raises:
        FileReadError: there is no such folder.
    """
    truth = read_objects(folder, classes).readable()
    scores = {form: DetectionScore("boxes") for form in forms}
    for index, path in enumerate(truth.images):
        progress("evaluating", index, len(truth.images))
        picture = read_image(path)
        size = (picture.shape[0], picture.shape[1])
        height, width = (new / old for new, old in zip(size, frame_size, strict=True))
        scale = np.array([width, height, width, height], np.float32)
        frame, objects = resize(picture, frame_size), truth.objects(index, size)
        for form, detect in forms.items():
            found = detect(frame)
            detections = Detections(found.boxes * scale, found.labels, found.scores)
            scores[form].add(objects, detections)
    progress("evaluating", len(truth.images), len(truth.images))
    found_scores = []
    for form, score in scores.items():
        box = score.average_precision()
        per_class = tuple(box.per_class.get(k, float("nan")) for k in range(len(classes)))
        found_scores.append(BoxScore(form, box.ap, box.ap50, per_class))
    return found_scores
