"""Detections and captions of two runs, paired: what golden vectors of such nets are held against.

Element by element, padded detections disagree as soon as two scores swap their order, and captions
as soon as one word differs. So each object that one side is sure of is looked for on the other
side, and a caption is the same or another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import Arrays

Floats = npt.NDArray[np.float64]

MATCHED = ("labels", "boxes", "scores", "masks")
"""Outputs that are compared, masks where there are any; what counts detections follows."""

_SURE = 0.5
_SAME_OBJECT = 0.5


def distances(reference: Arrays, candidate: Arrays) -> dict[str, Floats]:
    """Pair the detections of both sides, and return how far each pair is apart.

    A detection is sought if its score is at least half the best one of `reference`; its partner is
    the one of its class that overlaps it most, if by more than one half.

    Args:
        reference: boxes float[..., D, 4], labels int[..., D], scores float[..., D] and maybe
            masks [..., D, h, w]; a score of 0 is padding.
        candidate: the same.

    Returns:
        For each name in `MATCHED` one number per sought detection: 0 or 1 for the label, 1 - IoU
        for the box, the distance of the scores, the mean distance of the masks' cells. Without a
        partner the label, the box and the mask are 1 apart, and the scores by the whole score.
    """
    a, b = _frames(reference), _frames(candidate)
    sure = max((float(frame["scores"].max(initial=0)) for frame in a), default=0.0) * _SURE
    found: dict[str, list[float]] = {name: [] for name in MATCHED if name in reference}
    for one, other in zip(a, b, strict=True):
        for these, those in ((one, other), (other, one)):
            for index in np.flatnonzero(these["scores"] >= max(sure, 1e-9)):
                for name, value in _distance(these, int(index), those).items():
                    found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def caption_distances(reference: Arrays, candidate: Arrays) -> dict[str, Floats]:
    """Return how far the best captions of both sides are apart, one number for each.

    Args:
        reference: tokens int[..., K, T], scores float[..., K], and maybe attention
            float[..., K, T, h, w].
        candidate: the same.

    Returns:
        Under `tokens` 0 or 1 for another caption; under `scores` the distance of the scores, and
        under `attention` the largest of a place's weight, both 0 for another caption.
    """
    steps = reference["tokens"].shape[-1]
    beams = reference["tokens"].shape[-2]
    a, b = (side["tokens"].reshape(-1, beams, steps)[:, 0] for side in (reference, candidate))
    differs = (a != b).any(1)
    found = {"tokens": differs.astype(np.float64)}
    for name in ("scores", "attention"):
        if name in reference:
            one, other = (
                side[name].reshape(len(a), beams, -1)[:, 0].astype(np.float64)
                for side in (reference, candidate)
            )
            found[name] = np.where(differs, 0.0, np.abs(one - other).max(1))
    return found


def _frames(arrays: Arrays) -> list[dict[str, Floats]]:
    """Return each frame's real detections, float64."""
    scores = arrays["scores"].astype(np.float64)
    places = scores.shape[-1]
    frames = []
    shaped = {
        name: arrays[name].reshape(-1, places, *arrays[name].shape[scores.ndim :])
        for name in MATCHED
        if name in arrays
    }
    for index in range(len(shaped["scores"])):
        real = shaped["scores"][index] > 0
        frames.append({k: v[index][real].astype(np.float64) for k, v in shaped.items()})
    return frames


def _distance(these: dict[str, Floats], index: int, those: dict[str, Floats]) -> dict[str, float]:
    score = float(these["scores"][index])
    overlap = _overlaps(these["boxes"][index], those["boxes"])
    overlap = overlap * (those["labels"] == these["labels"][index])
    if not overlap.size or overlap.max() <= _SAME_OBJECT:
        missed = {"labels": 1.0, "boxes": 1.0, "scores": score, "masks": 1.0}
        return {name: missed[name] for name in these}
    partner = int(overlap.argmax())
    found = {
        "labels": 0.0,
        "boxes": 1.0 - float(overlap[partner]),
        "scores": abs(score - float(those["scores"][partner])),
    }
    if "masks" in these:
        apart = np.abs(these["masks"][index] - those["masks"][partner])
        found["masks"] = float(apart.mean())
    return found


def _overlaps(box: Floats, boxes: Floats) -> Floats:
    """Return float64[N]: intersection over union with each box, x1 y1 x2 y2."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clip(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    found: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found
