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
from edgevision.metrics.tally import Tally

# As the package has them: its thresholds and recalls are these very floats.
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_MAX_OF_A_CLASS = 100
# A bit of `hits` and `voids` for each threshold: found an object; found a crowd, which is neither.
_MATCH = np.dtype(
    [
        ("frame", "<i8"),
        ("label", "<i4"),
        ("rank", "<i4"),
        ("score", "<f8"),
        ("hits", "<u2"),
        ("voids", "<u2"),
    ]
)


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

    Each frame is matched when it is added, and only its matches are kept: frames can be shared
    out, and their tallies merged. Detections of a class that no frame truly holds count for
    nothing, as in the protocol.

    Args:
        by: what has to overlap.
        tally: where the matches are kept; its own by default.

    Raises:
        ValueError: `by` is neither.
        MissingDependencyError: pycocotools is not installed.
    """

    def __init__(self, by: Literal["boxes", "masks"], tally: Tally | None = None) -> None:
        if by not in ("boxes", "masks"):
            raise ValueError(f"by: got {by!r}, expected 'boxes' or 'masks'")
        self._by: str = by
        self._coco = require("pycocotools.coco", extra="metrics").COCO
        self._evaluation = require("pycocotools.cocoeval", extra="metrics").COCOeval
        self._codec = require("pycocotools.mask", extra="metrics")
        self._tally = Tally() if tally is None else tally
        self._frame_count = 0

    def add(self, objects: Objects, detections: Detections, *, frame: int | None = None) -> None:
        """Match one frame.

        Args:
            objects: what is truly in it.
            detections: what was found.
            frame: its number in the whole set, by which equal scores are put in order; as many as
                were added before if not given.

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
        number = self._frame_count if frame is None else frame
        self._frame_count += 1
        true_labels = np.array([e["category_id"] for e in truths if not e["iscrowd"]], np.int64)
        self._tally.count(f"{self._by}/objects", np.bincount(true_labels, minlength=1))
        if truths or found:
            self._match(number, truths, found)

    def average_precision(self) -> AveragePrecision:
        """Score everything added so far."""
        objects, rows = (
            np.atleast_1d(self._tally.counts(f"{self._by}/objects")),
            self._tally.rows(f"{self._by}/matches", _MATCH),
        )
        labels = np.flatnonzero(objects)
        precision = np.zeros((len(_THRESHOLDS), len(_RECALLS), len(labels)))
        recall = np.zeros((len(_THRESHOLDS), len(labels)))
        for k, label in enumerate(labels):
            # Sorted by frame and rank before, as the protocol has equal scores.
            mine = rows[rows["label"] == label]
            mine = mine[np.argsort(-mine["score"], kind="stable")]
            for t in range(len(_THRESHOLDS)):
                hit, void = (mine[name] >> t & 1 == 1 for name in ("hits", "voids"))
                precision[t, :, k], recall[t, k] = _curve(hit & ~void, ~hit & ~void, objects[label])
        return AveragePrecision(
            ap=_mean(precision),
            ap50=_mean(precision[np.isclose(_THRESHOLDS, 0.5)]),
            ap75=_mean(precision[np.isclose(_THRESHOLDS, 0.75)]),
            recall=_mean(recall),
            per_class={int(label): _mean(precision[:, :, k]) for k, label in enumerate(labels)},
        )

    def _match(self, frame: int, truths: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
        labels = sorted({entry["category_id"] for entry in truths + found})
        # The package reports to stdout whatever it does.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(
                self._indexed(truths, labels),
                self._indexed(found, labels),
                "bbox" if self._by == "boxes" else "segm",
            )
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [_MAX_OF_A_CLASS]
            evaluation.evaluate()
        bits = 1 << np.arange(len(_THRESHOLDS))
        for one in filter(None, evaluation.evalImgs):
            rows = np.zeros(len(one["dtScores"]), _MATCH)
            rows["frame"], rows["label"] = frame, one["category_id"]
            rows["rank"], rows["score"] = np.arange(len(rows)), one["dtScores"]
            rows["hits"] = bits @ (np.asarray(one["dtMatches"]) > 0)
            rows["voids"] = bits @ (np.asarray(one["dtIgnore"]) > 0)
            self._tally.extend(f"{self._by}/matches", rows)

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
                "image_id": 0,
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

    def _indexed(self, entries: list[dict[str, Any]], labels: list[int]) -> Any:
        coco = self._coco()
        coco.dataset = {
            # Sides are read only for masks that are polygons.
            "images": [{"id": 0, "height": 0, "width": 0}],
            "categories": [{"id": label} for label in labels],
            # The matching takes the number 0 for no object at all.
            "annotations": [entry | {"id": k} for k, entry in enumerate(entries, 1)],
        }
        coco.createIndex()
        return coco


def _curve(
    hits: npt.NDArray[np.bool_], misses: npt.NDArray[np.bool_], objects: int
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the best precision at each recall or above, and the recall of all detections."""
    right, wrong = np.cumsum(hits), np.cumsum(misses)
    found = np.zeros(len(_RECALLS))
    if not len(right):
        return found, 0.0
    recall = right / objects
    precision = right / np.maximum(right + wrong, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    found[at < len(best)] = best[at[at < len(best)]]
    return found, float(recall[-1])


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
