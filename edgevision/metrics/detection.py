"""Boxes over a folder: average precision by the COCO protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevision.metrics.average_precision import Detections, DetectionScore
from edgevision.metrics.coco import ObjectMetric, PictureObjects
from edgevision.metrics.metric import Score
from edgevision.metrics.tally import Tally
from edgevision.tasks.detection import DetectionDecoder, DetectionResult


@dataclass(frozen=True, slots=True)
class BoxScore(Score):
    """How one form of a detector does on a folder, by the COCO protocol.

    Attributes:
        box_ap: average precision of the boxes, 0 to 1.
        box_ap50: at IoU 0.50.
        class_box_ap: `box_ap` per class, NaN where a class does not occur.
    """

    box_ap: float
    box_ap50: float
    class_box_ap: tuple[float, ...]

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {"box AP": self.box_ap, "box AP50": self.box_ap50}

    def per_class(self) -> tuple[float, ...]:
        """Return the box AP of each class, NaN where it does not occur."""
        return self.class_box_ap


class DetectionMetric(ObjectMetric):
    """Boxes matched with those of COCO's `instances.json`; detections in the picture's pixels."""

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: PictureObjects | None,
        found: DetectionResult,
        first: DetectionResult | None,
    ) -> None:
        """Match one frame's boxes; see `Metric`."""
        if truth is None:
            return
        height, width = (new / old for new, old in zip(truth.size, found.frame_size, strict=True))
        scale = np.array([width, height, width, height], np.float32)
        detections = Detections(found.boxes * scale, found.labels, found.scores)
        DetectionScore("boxes", tally).add(truth.objects, detections, frame=frame)

    def score(self, form: str, tally: Tally) -> BoxScore:
        """Return the average precision; see `Metric`."""
        box = DetectionScore("boxes", tally).average_precision()
        return BoxScore(form, box.ap, box.ap50, self._of_classes(box))


def metric(decoder: DetectionDecoder) -> DetectionMetric:
    """Return the metric of a detector; see `Metric`."""
    return DetectionMetric([label.name for label in decoder.classes])
