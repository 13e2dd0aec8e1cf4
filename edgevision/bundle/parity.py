"""Comparison of what a candidate computes with its reference, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MAX_RELATED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a candidate may be from its reference.

    Attributes:
        max_abs: an element further away than this is a mismatch; 0 for labels, which must be equal.
        max_mismatch_share: largest share of elements that may mismatch, 0 to 1.
    """

    max_abs: float = 0.0
    max_mismatch_share: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_abs) and self.max_abs >= 0):
            raise ValueError(f"max_abs: got {self.max_abs}, expected a finite number >= 0")
        if not 0 <= self.max_mismatch_share <= 1:
            raise ValueError(f"max_mismatch_share: got {self.max_mismatch_share}, expected 0 to 1")


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Outcome of one comparison.

    Attributes:
        name: what was compared.
        elements: how many elements.
        mismatch_share: share of elements further apart than `tolerance.max_abs`.
        max_abs: largest distance; NaN where one side is not finite and the other is.
        mean_abs: mean distance over elements finite on both sides.
        tolerance: what was allowed.
        passed: whether the candidate stayed within it.
        constant_share: share of elements that the best constant answer would have missed; looked
            for only where the candidate did not pass.
    """

    name: str
    elements: int
    mismatch_share: float
    max_abs: float
    mean_abs: float
    tolerance: Tolerance
    passed: bool
    constant_share: float = 0.0

    @property
    def unrelated_reason(self) -> str:
        """Why the candidate has nothing to do with its reference; empty if it has.

        Values that are not numbers, more than half of the elements off, or no more of them right
        than a constant gets right: the baseline of no skill, as of Murphy, "Skill scores based on
        the mean square error" (Monthly Weather Review 116, 1988), whose skill 0 is a constant's.
        """
        if math.isnan(self.max_abs):
            return "it gives values that are not finite"
        if self.elements == 1:  # a figure over the whole, which its own bar keeps related
            return ""
        if self.mismatch_share > _MAX_RELATED_SHARE:
            return f"{self.mismatch_share:.1%} of the elements are off, more than half"
        if 0 < self.constant_share <= self.mismatch_share:
            return (
                f"{self.mismatch_share:.1%} of the elements are off, and a constant answer would "
                f"miss {self.constant_share:.1%}"
            )
        return ""

    def __str__(self) -> str:
        """Return one line for people."""
        verdict = "agrees" if self.passed else "DISAGREES"
        return (
            f"{self.name}: {verdict}; {self.mismatch_share:.3%} of {self.elements} elements off by "
            f"more than {self.tolerance.max_abs:g} (allowed {self.tolerance.max_mismatch_share:.3%}"
            f"), largest distance {self.max_abs:.4g}"
        )


def compare(
    reference: npt.NDArray[np.generic],
    candidate: npt.NDArray[np.generic],
    tolerance: Tolerance,
    *,
    name: str,
) -> ParityReport:
    """Hold `candidate` against `reference`.

    Equal infinities and two NaN in one place agree; a NaN or infinity on only one side mismatches.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    if reference.shape != candidate.shape:
        raise ValueError(
            f"{name}: candidate has shape {candidate.shape}, reference {reference.shape}"
        )
    if reference.size == 0:
        raise ValueError(f"{name}: its shape is {reference.shape}: there is nothing to compare")
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    distance = np.abs(a[finite] - b[finite])
    broken = int(np.count_nonzero(~finite & ~same))
    mismatches = int(np.count_nonzero(distance > tolerance.max_abs)) + broken
    share = mismatches / reference.size
    return ParityReport(
        name=name,
        elements=reference.size,
        mismatch_share=share,
        max_abs=float("nan") if broken else float(distance.max(initial=0.0)),
        mean_abs=float(distance.mean()) if distance.size else 0.0,
        tolerance=tolerance,
        passed=share <= tolerance.max_mismatch_share,
        constant_share=0.0 if share <= tolerance.max_mismatch_share else _missed(a, tolerance),
    )


def _missed(reference: npt.NDArray[np.float64], tolerance: Tolerance) -> float:
    """Return the share of elements that the best constant answer would miss."""
    known = np.sort(reference[np.isfinite(reference)])
    if not known.size:
        return 0.0
    # The constant that is within reach of most: each value as the lower end of its reach.
    ends = np.searchsorted(known, known + 2 * tolerance.max_abs, side="right")
    return float(1 - (ends - np.arange(known.size)).max() / reference.size)
