"""Objects over a folder: average precision of boxes and masks, by the COCO protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgevision.metrics.average_precision import Detections, DetectionScore
from edgevision.metrics.coco import read_objects
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.metrics.segmentation import resize_nearest
from edgevision.progress import Progress, silent
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.instance import InstanceDecoder, InstanceResult

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class InstanceScore:
    """How one form of a net does on a folder, by the COCO protocol.

    Attributes:
        form: which form, e.g. "int8".
        box_ap: average precision of the boxes, 0 to 1.
        mask_ap: average precision of the masks.
        box_ap50: of the boxes at IoU 0.50.
        mask_ap50: of the masks at IoU 0.50.
        class_mask_ap: `mask_ap` per class, NaN where a class does not occur.
    """

    form: str
    box_ap: float
    mask_ap: float
    box_ap50: float
    mask_ap50: float
    class_mask_ap: tuple[float, ...]

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "box AP": self.box_ap,
            "mask AP": self.mask_ap,
            "box AP50": self.box_ap50,
            "mask AP50": self.mask_ap50,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return the mask AP of each class, NaN where it does not occur."""
        return self.class_mask_ap


def score_folder(
    decoder: InstanceDecoder, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_instances`."""
    return list(
        evaluate_instances(
            forms,
            folder,
            classes=[label.name for label in decoder.classes],
            frame_size=decoder.camera.size,
            progress=progress,
        )
    )


def evaluate_instances(
    forms: Mapping[str, Callable[[Image], InstanceResult]],
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[InstanceScore]:
    """Score each form on every picture of `folder`, see `coco`.

    Frames are resized to `frame_size`, detections back to the picture.

    Raises:
        FileReadError: there is no such folder.
    """
    truth = read_objects(folder, classes).readable()
    boxes = {form: DetectionScore("boxes") for form in forms}
    masks = {form: DetectionScore("masks") for form in forms}
    for index, path in enumerate(truth.images):
        progress("evaluating", index, len(truth.images))
        picture = read_image(path)
        size = (picture.shape[0], picture.shape[1])
        frame, objects = resize(picture, frame_size), truth.objects(index, size)
        for form, detect in forms.items():
            found = _resized(detect(frame), size)
            pasted = Detections(found.boxes, found.labels, found.scores, found.pasted())
            boxes[form].add(objects, pasted)
            masks[form].add(objects, pasted)
    progress("evaluating", len(truth.images), len(truth.images))
    scores = []
    for form in forms:
        box, mask = boxes[form].average_precision(), masks[form].average_precision()
        per_class = tuple(mask.per_class.get(k, float("nan")) for k in range(len(classes)))
        scores.append(InstanceScore(form, box.ap, mask.ap, box.ap50, mask.ap50, per_class))
    return scores


def _resized(result: InstanceResult, size: tuple[int, int]) -> InstanceResult:
    """Return what was found, in the pixels of a picture of `size`."""
    height, width = (new / old for new, old in zip(size, result.frame_size, strict=True))
    boxes = result.boxes * np.array([width, height, width, height], np.float32)
    masks = result.masks
    if masks.dtype == np.uint8:  # of the frame, not of the boxes
        masks = np.array([resize_nearest(mask, size) for mask in masks], np.uint8).reshape(
            -1, *size
        )
    return replace(result, boxes=boxes, masks=masks, frame_size=size)
