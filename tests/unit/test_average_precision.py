"""Average precision, against an independent reading of the protocol and cases done by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.errors import MissingDependencyError
from edgevision.metrics.average_precision import Detections, DetectionScore, Objects

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(101) / 100


def objects(*boxes: tuple[float, ...], label: int = 1, crowd: bool = False) -> Objects:
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(count, 4),
        np.full(count, label),
        crowd=np.full(count, crowd),
    )


def detections(*scored: tuple[float, ...], label: int = 1) -> Detections:
    table = np.array(scored, float).reshape(len(scored), 5)
    return Detections(table[:, :4], np.full(len(scored), label), table[:, 4])


def score(*frames: tuple[Objects, Detections]) -> DetectionScore:
    total = DetectionScore("boxes")
    for truth, found in frames:
        total.add(truth, found)
    return total


def reference_ap(frames: list[tuple[Objects, Detections]], label: int, threshold: float) -> float:
    """One class at one threshold: greedy matches by score, then precision at 101 recalls."""
    rows, total = [], 0
    for truth, found in frames:
        true = truth.boxes[truth.labels == label]
        total += len(true)
        free = list(range(len(true)))
        mine = found.labels == label
        for rank in np.argsort(-found.scores[mine], kind="stable"):
            box = found.boxes[mine][rank]
            overlaps = {k: iou(box, true[k]) for k in free}
            # Of equals the package takes the last.
            best = max(overlaps, key=lambda k: (overlaps[k], k), default=None)
            hit = best is not None and overlaps[best] >= min(threshold, 1 - 1e-10)
            if hit:
                free.remove(best)
            rows.append((found.scores[mine][rank], hit))
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows])
    if not len(hits):
        return 0.0
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / total
    return float(np.mean([max(precision[recall >= level], default=0.0) for level in RECALLS]))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(sides.clip(min=0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return shared / (areas - shared)


@st.composite
def some_frames(draw: st.DrawFn) -> list[tuple[Objects, Detections]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames = []
    for _ in range(draw(st.integers(1, 3))):
        corner = rng.integers(0, 60, (draw(st.integers(0, 4)), 2))
        boxes = np.hstack([corner, corner + rng.integers(5, 40, corner.shape)]).astype(float)
        labels = rng.integers(1, 3, len(boxes))
        again = rng.integers(0, max(1, len(boxes)), draw(st.integers(0, 6)) if len(boxes) else 0)
        found = boxes[again] + rng.normal(0, 2, (len(again), 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        swapped = np.where(rng.random(len(again)) < 0.2, 3 - labels[again], labels[again])
        scores = rng.permutation(len(again)) / 10 + rng.random() / 100
        frames.append((Objects(boxes, labels), Detections(found, swapped, scores)))
    return frames


@settings(max_examples=40, deadline=None)
@given(some_frames())
def test_boxes_score_as_the_protocol_says(frames: list[tuple[Objects, Detections]]) -> None:
    result = score(*frames).average_precision()
    known = sorted({int(label) for truth, _ in frames for label in truth.labels})
    expected = {
        label: np.mean([reference_ap(frames, label, t) for t in THRESHOLDS]) for label in known
    }
    assert result.per_class == pytest.approx(expected)
    if known:
        assert result.ap == pytest.approx(np.mean(list(expected.values())))
        for value, threshold in ((result.ap50, 0.5), (result.ap75, 0.75)):
            at = [reference_ap(frames, label, threshold) for label in known]
            assert value == pytest.approx(np.mean(at))
    else:
        assert math.isnan(result.ap)


def test_a_box_found_at_iou_06_counts_at_three_thresholds() -> None:
    result = score((objects((0, 0, 10, 10)), detections((0, 0, 10, 6.1, 0.9))))
    precision = result.average_precision()
    assert precision.ap == pytest.approx(0.3)
    assert precision.recall == pytest.approx(0.3)
    assert (precision.ap50, precision.ap75) == (pytest.approx(1), 0)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong() -> None:
    found = detections((0, 0, 10, 10, 0.5), (50, 50, 60, 60, 0.9), (55, 50, 65, 60, 0.8))
    crowd = objects((40, 40, 80, 80), crowd=True)
    both = Objects(
        np.vstack([objects((0, 0, 10, 10)).boxes, crowd.boxes]),
        np.array([1, 1]),
        crowd=np.array([False, True]),
    )
    assert score((both, found)).average_precision().ap == pytest.approx(1)
    assert score((objects((0, 0, 10, 10)), found)).average_precision().ap == pytest.approx(1 / 3)
    assert math.isnan(score((crowd, found)).average_precision().ap)


def test_masks_score_by_their_pixels_and_not_by_their_boxes() -> None:
    """Two triangles of one square: equal boxes, an overlap of the diagonal alone."""
    upper = np.triu(np.ones((1, 20, 20), bool))
    box, label = np.array([[0.0, 0, 20, 20]]), np.array([3])
    for mask, expected in ((upper, 1.0), (upper.transpose(0, 2, 1), 0.0)):
        total = DetectionScore("masks")
        total.add(Objects(box, label, upper), Detections(box, label, np.array([0.5]), mask))
        assert total.average_precision().per_class == {3: pytest.approx(expected)}
    assert score(
        (Objects(box, label), Detections(box, label, np.array([0.5])))
    ).average_precision().ap == pytest.approx(1)


def test_nothing_prints_and_nothing_found_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert score((objects((0, 0, 5, 5)), detections())).average_precision().ap == 0
    assert math.isnan(score((objects(), detections())).average_precision().ap)
    assert math.isnan(score().average_precision().ap50)
    assert capsys.readouterr().out == ""


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevision\[metrics\]'"):
        DetectionScore("boxes")


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="by: got 'pixels'"):
        DetectionScore("pixels")  # type: ignore[arg-type]
    box, label, one = np.zeros((1, 4)), np.array([1]), np.array([0.5])
    for truth, found, message in (
        (Objects(box[0], label), Detections(box, label, one), r"objects: boxes are \[4\]"),
        (Objects(box, label), Detections(box, label, one[:0]), r"scores are \[0\], expected \[1\]"),
        (Objects(box, label), Detections(box, label, one * np.nan), "scores hold NaN"),
        (Objects(box, label), Detections(box * np.nan, label, one), "detections: boxes hold NaN"),
        (Objects(box, label, crowd=one[:0] > 0), Detections(box, label, one), "crowd is"),
        (Objects(box, label, np.ones((1, 2, 2))), Detections(box, label, one), "masks are float"),
    ):
        with pytest.raises(ValueError, match=message):
            DetectionScore("boxes").add(truth, found)
    with pytest.raises(ValueError, match="objects: got no masks"):
        DetectionScore("masks").add(Objects(box, label), Detections(box, label, one))
