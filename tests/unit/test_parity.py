"""`compare`, against an oracle that looks at one element after the other."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgevision.bundle.parity import Tolerance, compare

LARGEST = float(np.finfo(np.float32).max)
ELEMENTS = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, LARGEST, -LARGEST]),
)
PAIRS = hnp.array_shapes(max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=ELEMENTS)] * 2)
)
TOLERANCES = st.builds(Tolerance, st.floats(0, 10), st.floats(0, 1))
Floats = npt.NDArray[np.float32]


def _oracle(a: float, b: float, max_abs: float) -> tuple[bool, float | None]:
    """Return whether the elements mismatch, and how far apart they are where that is a number."""
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) > max_abs, abs(a - b)
    return not (a == b or (math.isnan(a) and math.isnan(b))), None


@given(PAIRS, TOLERANCES)
@example((np.full(1, np.inf, np.float32), np.full(1, -np.inf, np.float32)), Tolerance(1))
@example((np.full(2, np.nan, np.float32), np.full(2, np.nan, np.float32)), Tolerance())
def test_compare_agrees_with_the_oracle(pair: tuple[Floats, Floats], tolerance: Tolerance) -> None:
    reference, candidate = pair
    report = compare(reference, candidate, tolerance, name="y")
    verdicts = [
        _oracle(float(a), float(b), tolerance.max_abs)
        for a, b in zip(reference.ravel(), candidate.ravel(), strict=True)
    ]
    mismatches = sum(mismatch for mismatch, _ in verdicts)
    distances = [distance for _, distance in verdicts if distance is not None]
    assert report.elements == reference.size
    assert report.mismatch_share == mismatches / reference.size
    assert report.passed == (report.mismatch_share <= tolerance.max_mismatch_share)
    one_sided = any(mismatch and distance is None for mismatch, distance in verdicts)
    if one_sided:
        assert math.isnan(report.max_abs)
    else:
        assert report.max_abs == max(distances, default=0.0)
    assert report.mean_abs == pytest.approx(np.mean(distances) if distances else 0.0)


@given(PAIRS)
def test_everything_agrees_with_itself(pair: tuple[Floats, Floats]) -> None:
    report = compare(pair[0], pair[0].copy(), Tolerance(), name="y")
    assert report.passed
    assert report.mismatch_share == report.max_abs == report.mean_abs == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_single_bad_value_fails_whatever_the_distance_allowed(bad: float, swapped: bool) -> None:
    good = np.zeros(1000, np.float32)
    broken = good.copy()
    broken[500] = bad
    pair = (broken, good) if swapped else (good, broken)
    report = compare(*pair, Tolerance(max_abs=1e30), name="y")
    assert not report.passed
    assert math.isnan(report.max_abs)
    assert report.mismatch_share == 0.001
    assert "DISAGREES" in str(report)
    assert compare(*pair, Tolerance(0, max_mismatch_share=0.001), name="y").passed


def test_labels_do_not_wrap_around() -> None:
    report = compare(np.array([255], np.uint8), np.array([0], np.uint8), Tolerance(254), name="y")
    assert (report.max_abs, report.passed) == (255, False)


def test_booleans_and_other_dtypes_compare_by_value() -> None:
    reference = np.array([[True, False]])
    assert compare(reference, np.array([[1, 0]], np.int64), Tolerance(), name="y").passed
    assert compare(np.array([2.0]), np.array([2], np.int8), Tolerance(), name="y").passed


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 2)), ((2,), (1, 2)), ((), (1,))])
def test_shapes_must_be_equal(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    expected = re.escape(f"y: candidate has shape {b}, reference {a}")
    with pytest.raises(ValueError, match=expected):
        compare(np.zeros(a), np.zeros(b), Tolerance(), name="y")


def test_nothing_proves_nothing() -> None:
    with pytest.raises(ValueError, match=re.escape("y: its shape is (0,): there is nothing")):
        compare(np.zeros(0), np.zeros(0), Tolerance(), name="y")


def test_a_report_reads_as_one_line() -> None:
    reference = np.array([1.0, 2.0, 3.0, 4.0])
    candidate = np.array([1.0, 2.0, 3.0, 4.5])
    report = compare(reference, candidate, Tolerance(0.25, 0.5), name="main/y")
    assert str(report) == (
        "main/y: agrees; 25.000% of 4 elements off by more than 0.25 (allowed 50.000%), "
        "largest distance 0.5"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1.0, 0.0), "max_abs: got -1.0"),
        ((math.nan, 0.0), "max_abs: got nan"),
        ((math.inf, 0.0), "max_abs: got inf"),
        ((0.0, -0.1), "max_mismatch_share: got -0.1"),
        ((0.0, 1.1), "max_mismatch_share: got 1.1"),
        ((0.0, math.nan), "max_mismatch_share: got nan"),
    ],
)
def test_bad_tolerances_are_refused(values: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tolerance(*values)
