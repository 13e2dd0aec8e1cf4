"""Scores of detections and instance masks: average precision by the COCO protocol.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", and its authors' own
evaluation, pycocotools, which does the matching here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgevision._optional import require


@dataclass(frozen=True, slots=True)
class Objects:
    """What is truly in one frame.

    Attributes:
        boxes: `float[N, 4]`, xyxy in pixels.
        labels: `int[N]`.
        masks: `bool[N, H, W]`; without them only boxes can be scored.
        crowd: `bool[N]`, regions that hold many: what is found there is neither right nor wrong.
    """

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    masks: npt.NDArray[np.bool_] | None = None
    crowd: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one frame: as in `Objects`, and `scores: float[N]`."""

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating]
    masks: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """What the COCO protocol reports, 0 to 1; NaN where no frame has an object to find.

    Attributes:
        ap: mean over the classes and over the IoU thresholds 0.50, 0.55, ... 0.95.
        ap50: mean over the classes at IoU 0.50.
        ap75: mean over the classes at IoU 0.75.
        recall: share found among 100 detections of a class in a frame, mean as in `ap`.
        per_class: `ap` of each class that some frame truly holds.
    """

    ap: float
    ap50: float
    ap75: float
    recall: float
    per_class: Mapping[int, float]


class DetectionScore:
    """Objects and detections of any number of frames, and the average precision over them.

    Detections of a class that no frame truly holds count for nothing, as in the protocol.

    Args:
        by: what has to overlap.

    Raises:
        ValueError: `by` is neither.
        MissingDependencyError: pycocotools is not installed.
    """

    def __init__(self, by: Literal["boxes", "masks"]) -> None:
        if by not in ("boxes", "masks"):
            raise ValueError(f"by: got {by!r}, expected 'boxes' or 'masks'")
        self._by = by
        self._coco = require("pycocotools.coco", extra="metrics").COCO
        self._evaluation = require("pycocotools.cocoeval", extra="metrics").COCOeval
        self._codec = require("pycocotools.mask", extra="metrics")
        self._frame_count = 0
        self._objects: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []

    def add(self, objects: Objects, detections: Detections) -> None:
        """Take in one frame.

        Raises:
            ValueError: arrays disagree in shape, or masks are missing and asked for.
        """
        truths = self._entries("objects", objects)
        found = self._entries("detections", detections)
        crowd = objects.crowd
        if crowd is not None and crowd.shape != objects.labels.shape:
            raise ValueError(
                f"objects: crowd is {list(crowd.shape)}, expected [{len(objects.labels)}]"
            )
        if detections.scores.shape != detections.labels.shape:
            raise ValueError(
                f"detections: scores are {list(detections.scores.shape)}, "
                f"expected [{len(detections.labels)}]"
            )
        if not np.isfinite(detections.scores).all():
            raise ValueError("detections: scores hold NaN or infinity, expected finite numbers")
        for k, entry in enumerate(truths):
            entry["iscrowd"] = int(crowd is not None and crowd[k])
        for entry, score in zip(found, detections.scores, strict=True):
            entry["score"] = float(score)
        self._objects += truths
        self._detections += found
        self._frame_count += 1

    def average_precision(self) -> AveragePrecision:
        """Match everything added so far, and score it."""
        # The package reports to stdout whatever it does.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(
                self._indexed(self._objects),
                self._indexed(self._detections),
                "bbox" if self._by == "boxes" else "segm",
            )
            evaluation.evaluate()
            evaluation.accumulate()
        parameters = evaluation.params
        # [threshold, recall level, class] and [threshold, class], objects of any size; -1 is none.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        recall = evaluation.eval["recall"][:, :, 0, -1]
        return AveragePrecision(
            ap=_mean(precision),
            ap50=_mean(precision[np.isclose(parameters.iouThrs, 0.5)]),
            ap75=_mean(precision[np.isclose(parameters.iouThrs, 0.75)]),
            recall=_mean(recall),
            per_class={
                label: _mean(precision[:, :, k])
                for k, label in enumerate(parameters.catIds)
                if (precision[:, :, k] >= 0).any()
            },
        )

    def _entries(self, name: str, things: Objects | Detections) -> list[dict[str, Any]]:
        """Put one frame's things the way the package wants them."""
        boxes, labels, masks = things.boxes, things.labels, things.masks
        count = len(labels)
        if labels.ndim != 1 or boxes.shape != (count, 4):
            raise ValueError(
                f"{name}: boxes are {list(boxes.shape)}, labels {list(labels.shape)}, "
                "expected [N, 4] and [N]"
            )
        if not np.isfinite(boxes).all():
            raise ValueError(f"{name}: boxes hold NaN or infinity, expected finite numbers")
        if masks is not None and (
            masks.ndim != 3 or len(masks) != count or masks.dtype != np.bool_
        ):
            raise ValueError(
                f"{name}: masks are {masks.dtype}{list(masks.shape)}, expected bool[{count}, H, W]"
            )
        if masks is None and self._by == "masks":
            raise ValueError(f"{name}: got no masks, expected bool[{count}, H, W] to score masks")
        sides = boxes[:, 2:] - boxes[:, :2]
        entries: list[dict[str, Any]] = [
            {
                "image_id": self._frame_count,
                "category_id": int(labels[k]),
                "bbox": [*boxes[k, :2].tolist(), *sides[k].tolist()],
                "area": 0.0,  # read only for scores by size, which are not reported
                "iscrowd": 0,
            }
            for k in range(count)
        ]
        if masks is not None and self._by == "masks":
            for entry, mask in zip(entries, masks, strict=True):
                entry["segmentation"] = self._codec.encode(np.asfortranarray(mask, np.uint8))
        return entries

    def _indexed(self, entries: list[dict[str, Any]]) -> Any:
        labels = {entry["category_id"] for entry in self._objects + self._detections}
        coco = self._coco()
        coco.dataset = {
            "images": [
                # Sides are read only for masks that are polygons.
                {"id": frame, "height": 0, "width": 0}
                for frame in range(self._frame_count)
            ],
            "categories": [{"id": label} for label in sorted(labels)],
            # The matching takes the number 0 for no object at all.
            "annotations": [entry | {"id": k} for k, entry in enumerate(entries, 1)],
        }
        coco.createIndex()
        return coco


def _mean(values: npt.NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")
