"""Scores of semantic segmentation: the confusion matrix, IoU and accuracy from it, boundaries.

Source: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", section 4.1.2 (IoU).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgevision._optional import require

S = TypeVar("S", bound=np.generic)

# Of the diagonal, as Csurka et al. 2013 choose it.
_TOLERANCE_SHARE = 0.0075


class ConfusionMatrix:
    """Counts of (true class, predicted class) over any number of label maps.

    Pixels whose true class is not below `class_count` (void) are never scored; a predicted class
    outside the range counts as a miss of the true class.
    """

    def __init__(self, class_count: int, counts: npt.NDArray[np.int64] | None = None) -> None:
        if class_count < 1:
            raise ValueError(f"class_count: got {class_count}, expected at least 1")
        self.class_count = class_count
        empty = np.zeros((class_count, class_count + 1), np.int64)
        self._counts = empty if counts is None else counts

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Counts int64[classes, classes + 1]: rows true, columns predicted, the last "other"."""
        return self._counts.copy()

    def add(self, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]) -> None:
        """Count one pair of class maps of equal shape.

        Raises:
            ValueError: the shapes differ.
        """
        if truth.shape != predicted.shape:
            raise ValueError(
                f"class maps differ in shape: truth {truth.shape}, predicted {predicted.shape}. "
                "Resize the prediction to the truth first."
            )
        self._counts += counted_pairs(truth, predicted, self.class_count)

    def iou(self) -> npt.NDArray[np.float64]:
        """IoU float64[classes]: NaN where a class is neither in the truth nor predicted."""
        hit = np.diagonal(self._counts).astype(np.float64)
        union = self._counts.sum(1) + self._counts[:, :-1].sum(0) - hit
        with np.errstate(invalid="ignore"):
            return np.asarray(hit / union, np.float64)

    def miou(self) -> float:
        """Mean IoU over the classes that occur; NaN before anything was scored."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of scored pixels that are right; NaN before anything was scored."""
        total = int(self._counts.sum())
        return float(np.trace(self._counts) / total) if total else float("nan")


def counted_pairs(
    truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], class_count: int
) -> npt.NDArray[np.int64]:
    """Return how often each (true class, predicted class) stands in two maps of one shape.

    Returns:
        `int64[class_count, class_count + 1]`, the last column for predictions beyond the classes.
    """
    true = truth.astype(np.int64).ravel()
    scored = (true >= 0) & (true < class_count)
    guess = predicted.astype(np.int64).ravel()[scored]
    guess = np.where((guess >= 0) & (guess < class_count), guess, class_count)
    size = class_count * (class_count + 1)
    flat = np.bincount(true[scored] * (class_count + 1) + guess, minlength=size)
    return flat.reshape(class_count, class_count + 1)


def boundary_f_scores(
    truth: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    class_count: int,
    *,
    tolerance_px: float | None = None,
) -> npt.NDArray[np.float64]:
    """Return how well the outlines of each class agree in one pair of maps, 0 to 1.

    It is the harmonic mean of two shares: of the predicted outline that lies within the tolerance
    of the true one, and the other way round. An outline is every pixel of the class beside one of
    another class; the frame's edge is none, and neither is the edge of void.

    Source: Csurka et al. 2013, "What is a Good Evaluation Measure for Semantic Segmentation?"
    (its BF); Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video Object
    Segmentation" (its F). Both average over the frames, class by class: use `nanmean`.

    Args:
        truth: class map `int[H, W]`; what is not below `class_count` is void.
        predicted: class map `int[H, W]`.
        class_count: how many classes there are.
        tolerance_px: how far an outline may be off; 0.75 % of the diagonal if not given.

    Returns:
        `float64[class_count]`, NaN where a class has no outline in either map.

    Raises:
        ValueError: the maps have other shapes.
        MissingDependencyError: SciPy is not installed.
    """
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise ValueError(
            f"class maps: truth {list(truth.shape)}, predicted {list(predicted.shape)}, "
            "expected [H, W] twice"
        )
    ndimage = require("scipy.ndimage", extra="metrics")
    if tolerance_px is None:
        tolerance_px = _TOLERANCE_SHARE * float(np.hypot(*truth.shape))
    void = (truth < 0) | (truth >= class_count)
    outlines = [_outline(labels, void) for labels in (truth, predicted)]
    scores = np.full(class_count, np.nan)
    for k in range(class_count):
        true, guess = (
            outline & (labels == k)
            for outline, labels in zip(outlines, (truth, predicted), strict=True)
        )
        if not (true.any() and guess.any()):
            scores[k] = 0.0 if true.any() or guess.any() else np.nan
            continue
        precision = (ndimage.distance_transform_edt(~true)[guess] <= tolerance_px).mean()
        recall = (ndimage.distance_transform_edt(~guess)[true] <= tolerance_px).mean()
        both = precision + recall
        scores[k] = 2 * precision * recall / both if both else 0.0
    return scores


def _outline(labels: npt.NDArray[np.integer], void: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the pixels with a neighbour of another class above, below, left or right."""
    outline = np.zeros(labels.shape, np.bool_)
    for before, after in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        edge = (labels[before] != labels[after]) & ~void[before] & ~void[after]
        outline[before] |= edge
        outline[after] |= edge
    return outline


def resize_nearest(mask: npt.NDArray[S], shape: tuple[int, ...]) -> npt.NDArray[S]:
    """Return a map of labels or measurements at another (H, W), by nearest neighbour."""
    if mask.shape == shape:
        return mask
    rows = (np.arange(shape[0]) * mask.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * mask.shape[1]) // shape[1]
    scaled: npt.NDArray[S] = mask[rows[:, None], columns]
    return scaled
