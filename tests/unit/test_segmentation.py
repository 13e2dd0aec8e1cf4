"""Segmentation scores, against scikit-learn's and against outlines compared pixel by pixel."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from edgevision.metrics.segmentation import ConfusionMatrix, boundary_f_scores

CLASSES = 4
VOID = 255
Labels = npt.NDArray[np.uint8]


def _maps(*values: int) -> st.SearchStrategy[tuple[Labels, Labels]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)
    return shapes.flatmap(
        lambda shape: st.tuples(
            *[hnp.arrays(np.uint8, shape, elements=st.sampled_from(values))] * 2
        )
    )


@given(st.lists(_maps(0, 1, 2, 3), min_size=1, max_size=3))
def test_scores_are_scikit_learns(pairs: list[tuple[Labels, Labels]]) -> None:
    matrix = ConfusionMatrix(CLASSES)
    for truth, predicted in pairs:
        matrix.add(truth, predicted)
    true = np.concatenate([truth.ravel() for truth, _ in pairs])
    guess = np.concatenate([predicted.ravel() for _, predicted in pairs])
    labels = list(range(CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that do not occur.
        iou = jaccard_score(true, guess, labels=labels, average=None, zero_division=0)
        counts = confusion_matrix(true, guess, labels=labels)
    np.testing.assert_array_equal(matrix.counts[:, :-1], counts)
    assert not matrix.counts[:, -1].any()
    occurs = np.isin(labels, np.concatenate([true, guess]))
    np.testing.assert_allclose(matrix.iou()[occurs], iou[occurs])
    assert np.isnan(matrix.iou()[~occurs]).all()
    assert matrix.miou() == pytest.approx(np.mean(iou[occurs]))
    assert matrix.pixel_accuracy() == pytest.approx(accuracy_score(true, guess))


@given(_maps(0, 1, 2, 3, 4, VOID))
def test_void_is_not_scored_and_unknown_predictions_are_misses(pair: tuple[Labels, Labels]) -> None:
    truth, predicted = pair
    matrix = ConfusionMatrix(CLASSES)
    matrix.add(truth, predicted)
    known = truth < CLASSES
    assert matrix.counts.sum() == np.count_nonzero(known)
    assert matrix.counts[:, -1].sum() == np.count_nonzero(known & (predicted >= CLASSES))
    right = np.count_nonzero(known & (truth == predicted))
    if known.any():
        assert matrix.pixel_accuracy() == pytest.approx(right / np.count_nonzero(known))
    for k in range(CLASSES):
        union = np.count_nonzero(known & ((truth == k) | (predicted == k)))
        hit = np.count_nonzero((truth == k) & (predicted == k))
        if union:
            assert matrix.iou()[k] == pytest.approx(hit / union)
        else:
            assert math.isnan(matrix.iou()[k])


def test_negative_labels_are_void() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([-1, 0, 1]), np.array([0, -1, 1]))
    np.testing.assert_array_equal(matrix.counts, [[0, 0, 1], [0, 1, 0]])


def test_nothing_scored_is_not_a_number() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.full((2, 2), VOID, np.uint8), np.zeros((2, 2), np.uint8))
    assert math.isnan(matrix.miou())
    assert math.isnan(matrix.pixel_accuracy())
    assert np.isnan(matrix.iou()).all()


def test_counts_are_a_copy() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 7
    assert not matrix.counts.any()


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="class_count: got 0"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match=r"truth \(2, 3\), predicted \(3, 2\)"):
        ConfusionMatrix(2).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def outline_of(labels: Labels, k: int) -> npt.NDArray[np.int64]:
    """Pixels of class k beside another class, one by one; neither void nor the edge counts."""
    height, width = labels.shape
    return np.array(
        [
            (y, x)
            for y, x in np.argwhere(labels == k)
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= v < height and 0 <= u < width and labels[v, u] not in (k, VOID)
        ]
    ).reshape(-1, 2)


def near_share(points: npt.NDArray[np.int64], others: npt.NDArray[np.int64], most: float) -> float:
    gaps = np.hypot(*(points[:, None] - others[None]).transpose(2, 0, 1))
    return float((gaps.min(1) <= most).mean())


@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 1.5, 3.0]))
def test_outlines_agree_as_far_as_their_pixels_do(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, VOID], (2, 4, 5), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    truth, predicted = coarse.repeat(3, 1).repeat(3, 2)
    predicted = np.where(truth == VOID, VOID, np.where(predicted == VOID, 0, predicted))
    scores = boundary_f_scores(truth, predicted, CLASSES, tolerance_px=tolerance)
    for k in range(CLASSES):
        true, guess = (np.unique(outline_of(labels, k), axis=0) for labels in (truth, predicted))
        if not len(true) and not len(guess):
            assert math.isnan(scores[k])
        elif not len(true) or not len(guess):
            assert scores[k] == 0
        else:
            shares = near_share(guess, true, tolerance), near_share(true, guess, tolerance)
            both = sum(shares)
            expected = 2 * shares[0] * shares[1] / both if both else 0
            assert scores[k] == pytest.approx(expected)


def test_a_shifted_outline_counts_within_the_tolerance_alone() -> None:
    truth = np.zeros((300, 400), np.uint8)  # a diagonal of 500: 3.75 pixels
    truth[:, 200:] = 1
    for shift, expected in ((3, 1), (4, 0)):
        predicted = np.zeros_like(truth)
        predicted[:, 200 + shift :] = 1
        assert boundary_f_scores(truth, predicted, 2).tolist() == [expected, expected]


def test_outlines_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth \[2, 3\], predicted \[3, 2\]"):
        boundary_f_scores(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
