"""Scores of semantic segmentation: the confusion matrix, and IoU and accuracy from it.

Source: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", section 4.1.2 (IoU).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class ConfusionMatrix:
    """Counts of (true class, predicted class) over any number of label maps.

    Pixels whose true class is not below `class_count` (void) are never scored; a predicted class
    outside the range counts as a miss of the true class.
    """

    def __init__(self, class_count: int) -> None:
        if class_count < 1:
            raise ValueError(f"class_count: got {class_count}, expected at least 1")
        self.class_count = class_count
        self._counts = np.zeros((class_count, class_count + 1), np.int64)

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
        n = self.class_count
        true = truth.astype(np.int64).ravel()
        scored = (true >= 0) & (true < n)
        guess = predicted.astype(np.int64).ravel()[scored]
        guess = np.where((guess >= 0) & (guess < n), guess, n)
        flat = np.bincount(true[scored] * (n + 1) + guess, minlength=n * (n + 1))
        self._counts += flat.reshape(n, n + 1)

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
