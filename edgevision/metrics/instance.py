"""Objects over a folder: average precision of boxes and masks, by the COCO protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevision.metrics.average_precision import Detections, DetectionScore
from edgevision.metrics.coco import ObjectMetric, PictureObjects
from edgevision.metrics.metric import Score
from edgevision.metrics.segmentation import resize_nearest
from edgevision.metrics.tally import Tally
from edgevision.tasks.instance import InstanceDecoder, InstanceResult


@dataclass(frozen=True, slots=True)
class InstanceScore(Score):
    """How one form of a net does on a folder, by the COCO protocol.

    Attributes:
        box_ap: average precision of the boxes, 0 to 1.
        mask_ap: average precision of the masks.
        box_ap50: of the boxes at IoU 0.50.
        mask_ap50: of the masks at IoU 0.50.
        class_mask_ap: `mask_ap` per class, NaN where a class does not occur.
    """

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


class InstanceMetric(ObjectMetric):
    """Boxes and masks matched with those of COCO's `instances.json`, in the picture's pixels."""

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: PictureObjects | None,
        found: InstanceResult,
        first: InstanceResult | None,
    ) -> None:
        """Match one frame's boxes and masks; see `Metric`."""
        if truth is None:
            return
        moved = _resized(found, truth.size)
        pasted = Detections(moved.boxes, moved.labels, moved.scores, moved.pasted())
        DetectionScore("boxes", tally).add(truth.objects, pasted, frame=frame)
        DetectionScore("masks", tally).add(truth.objects, pasted, frame=frame)

    def score(self, form: str, tally: Tally) -> InstanceScore:
        """Return the average precisions; see `Metric`."""
        box = DetectionScore("boxes", tally).average_precision()
        mask = DetectionScore("masks", tally).average_precision()
        return InstanceScore(form, box.ap, mask.ap, box.ap50, mask.ap50, self._of_classes(mask))


def metric(decoder: InstanceDecoder) -> InstanceMetric:
    """Return the metric of a net; see `Metric`."""
    return InstanceMetric([label.name for label in decoder.classes])


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
