"""Detections and captions, paired: order and padding do not matter, a lost object does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevision.bundle.parity import Tolerance
from edgevision.tasks.matching import caption_distances, distances
from edgevision.tasks.task import get_task

LOOSE = dict.fromkeys(("labels", "boxes", "scores", "masks"), Tolerance(0.05, 0.0))


def found(places: int = 6) -> dict[str, Any]:
    """Return two frames of three and one objects, padded."""
    random = np.random.default_rng(0)
    corner = np.arange(2 * places).reshape(2, places, 1) * 30.0 + random.uniform(0, 3, (1, 1, 2))
    scores = np.zeros((2, places), np.float32)
    scores[0, :3], scores[1, :1] = (0.9, 0.8, 0.2), 0.7
    return {
        "boxes": np.concatenate([corner, corner + 20], -1).astype(np.float32),
        "labels": np.where(scores > 0, np.arange(places) + 1, 0).astype(np.int32),
        "scores": scores,
        "masks": random.uniform(0, 1, (2, places, 4, 4)).astype(np.float32),
    }


def test_nothing_is_away_from_itself() -> None:
    apart = distances(found(), found())
    # Both sides are searched; 0.2 is less than half of the best score.
    assert all(len(values) == 6 for values in apart.values())
    assert not any(values.any() for values in apart.values())


def test_the_order_does_not_matter() -> None:
    swapped = {name: values[:, [1, 0, 2, 3, 4, 5]] for name, values in found().items()}
    for values in distances(found(), swapped).values():
        assert values.max() == 0


def test_each_distance_is_what_it_says() -> None:
    other = found()
    other["boxes"][0, 0, 2] += 5
    other["scores"][0, 1] -= 0.1
    other["masks"][1, 0] += 0.25
    apart = distances(found(), other)
    assert sorted(apart["boxes"].round(6)) == [0, 0, 0, 0, 0.2, 0.2]
    assert sorted(apart["scores"].round(6)) == [0, 0, 0, 0, 0.1, 0.1]
    assert sorted(apart["masks"].round(6)) == [0, 0, 0, 0, 0.25, 0.25]


@pytest.mark.parametrize("side", [0, 1])
def test_an_object_that_one_side_lacks_is_a_mismatch(side: int) -> None:
    lacking = found()
    lacking["scores"][0, 0] = 0
    pair = (lacking, found()) if side else (found(), lacking)
    apart = distances(*pair)
    assert apart["labels"].sum() == 1
    assert apart["scores"].max() == pytest.approx(0.9)
    reports = get_task("instance").compare(*pair, LOOSE, name="x")
    assert [report.passed for report in reports] == [False] * 4


def test_another_class_is_another_object() -> None:
    other = found()
    other["labels"][0, 1] += 1
    assert distances(found(), other)["labels"].sum() == 2


def test_nothing_to_compare_is_no_proof() -> None:
    empty = found() | {"scores": np.zeros((2, 6), np.float32)}
    with pytest.raises(ValueError, match="neither side detects anything"):
        get_task("instance").compare(empty, empty, LOOSE, name="x")


def captions(**changes: Any) -> dict[str, Any]:
    """Two samples of one frame with two beams of three words, and 2x2 places."""
    tokens = np.arange(12, dtype=np.int32).reshape(2, 1, 2, 3)
    scores = np.array([[[-1.0, -2.0]], [[-3.0, -4.0]]], np.float32)
    attention = np.full((2, 1, 2, 3, 2, 2), 0.25, np.float32)
    return {"tokens": tokens, "scores": scores, "attention": attention} | changes


def test_a_caption_is_the_same_or_another() -> None:
    other = {name: array.copy() for name, array in captions().items()}
    other["tokens"][1, 0, 0, 2] = 99
    other["scores"][0, 0, 0] = -1.5
    other["scores"][1, 0, 0] = -90
    other["attention"][0, 0, 0, 1, 1, 0] = 0.75
    # The second beam is not looked at: two that are nearly as likely change places.
    other["tokens"][:, :, 1] = 7
    apart = caption_distances(captions(), other)
    assert apart["tokens"].tolist() == [0, 1]
    np.testing.assert_allclose(apart["scores"], [0.5, 0])
    np.testing.assert_allclose(apart["attention"], [0.5, 0])


def test_captions_without_attention_are_compared_by_what_they_have() -> None:
    bars = {"tokens": Tolerance(0, 0.5), "scores": Tolerance(0.1, 0.0)}
    other = captions(tokens=captions()["tokens"] * [[[[1]]], [[[2]]]])
    reports = get_task("caption").compare(captions(), other, bars, name="fp16")
    assert [(r.name, r.passed) for r in reports] == [("fp16/tokens", True), ("fp16/scores", True)]
    reports = get_task("caption").compare(
        captions(), captions(scores=captions()["scores"] - 1), bars, name="x"
    )
    assert [r.passed for r in reports] == [True, False]


def test_a_bar_for_what_a_task_does_not_hold_is_refused() -> None:
    bars = {"tokens": Tolerance(0, 0.5), "lengths": Tolerance(0, 0)}
    with pytest.raises(ValueError, match=r"bars for \['lengths'\]; held are .*'tokens'"):
        get_task("caption").compare(captions(), captions(), bars, name="x")
