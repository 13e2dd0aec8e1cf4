"""What shares of a set add up to: the same digits as one pass, in any order, saved or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.metrics.average_precision import Objects
from edgevision.metrics.caption import CaptionMetric
from edgevision.metrics.classification import ClassificationMetric
from edgevision.metrics.coco import PictureObjects
from edgevision.metrics.depth import DepthMetric
from edgevision.metrics.detection import DetectionMetric
from edgevision.metrics.images import FeatureMoments, frechet_distance
from edgevision.metrics.instance import InstanceMetric
from edgevision.metrics.metric import Metric
from edgevision.metrics.semantic import SemanticMetric
from edgevision.metrics.tally import Tally
from edgevision.tasks.camera import ClassLabel
from edgevision.tasks.instance import InstanceResult
from edgevision.tasks.task import get_task, task_names
from edgevision.tasks.timings import Timings

SIZE = (6, 8)
Draw = Callable[[np.random.Generator], Any]
Frame = tuple[Any, Any, Any]


def class_maps(rng: np.random.Generator) -> Frame:
    truth, found, first = rng.integers(0, 4, (3, *SIZE)).astype(np.uint8)
    truth[0, :3] = (0, 1, 2)
    return truth, SimpleNamespace(mask=found), SimpleNamespace(mask=first)


def labels(rng: np.random.Generator) -> Frame:
    found, first = (SimpleNamespace(labels=rng.permutation(9)[:5]) for _ in range(2))
    return int(rng.integers(9)), found, first


def depths(rng: np.random.Generator) -> Frame:
    truth, found, first = np.exp(rng.normal(0, 3, (3, *SIZE))).astype(np.float32)
    truth[rng.random(SIZE) < 0.3] = 0
    return truth, SimpleNamespace(depth=found), SimpleNamespace(depth=first)


def captions(rng: np.random.Generator) -> Frame:
    words = np.array(["a", "dog", "cat", "sits", "\u00e9tang", "here"])
    found, one, other = (" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(3))
    results = [SimpleNamespace(text=found, tokens=rng.integers(0, 2, 2)) for _ in range(2)]
    return [one, other], *results


def objects(rng: np.random.Generator) -> Frame:
    def boxes(count: int) -> np.ndarray:
        corner = rng.integers(0, 5, (count, 2))
        return np.hstack([corner, corner + rng.integers(1, 3, (count, 2))]).astype(np.float32)

    true, found = boxes(rng.integers(0, 4)), boxes(rng.integers(0, 6))
    if len(true) and len(found):
        found[0] = true[0]
    truth = Objects(
        true, rng.integers(0, 2, len(true)), rng.random((len(true), *SIZE)) < 0.5,
        rng.random(len(true)) < 0.2,
    )  # fmt: skip
    result = InstanceResult(
        found, rng.integers(0, 2, len(found)).astype(np.int32),
        rng.integers(1, 4, len(found)).astype(np.float32) / 4,  # many are equal
        (ClassLabel("a", "#000000"), ClassLabel("b", "#ffffff")), SIZE, True, True,
        Timings(0, 0, 0), (rng.random((len(found), *SIZE)) < 0.5).astype(np.uint8),
    )  # fmt: skip
    return PictureObjects(truth, SIZE), result, result


METRICS: dict[str, tuple[Metric, Draw]] = {
    "semantic": (SemanticMetric(3), class_maps),
    "classification": (ClassificationMetric(tuple("abcdefghi")), labels),
    "depth": (DepthMetric(), depths),
    "caption": (CaptionMetric(), captions),
    "detection": (DetectionMetric(["a", "b"]), objects),
    "instance": (InstanceMetric(["a", "b"]), objects),
}


def figures(metric: Metric, tally: Tally) -> list[str]:
    """Return every digit of a score, NaN equal to NaN."""
    score = metric.score("net", tally)
    return [*map(repr, score.figures().values()), *map(repr, score.per_class())]


def test_each_task_with_a_metric_is_here() -> None:
    assert {name for name in task_names() if get_task(name).headline} == set(METRICS)


@pytest.mark.parametrize("task", METRICS)
@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.data())
def test_shares_give_the_digits_of_one_pass(
    task: str, seed: int, count: int, data: st.DataObject
) -> None:
    metric, draw = METRICS[task]
    rng = np.random.default_rng(seed)
    whole, frames = Tally(), [draw(rng) for _ in range(count)]
    for number, frame in enumerate(frames):
        metric.add(whole, number, *frame)
    shares = [Tally() for _ in range(data.draw(st.integers(1, 4)))]
    for number in data.draw(st.permutations(range(count))):
        share = shares[data.draw(st.integers(0, len(shares) - 1))]
        metric.add(share, number, *frames[number])
    shares = [Tally.from_bytes(share.to_bytes()) for share in shares]
    while len(shares) > 1:
        one = shares.pop(data.draw(st.integers(0, len(shares) - 1)))
        other = shares.pop(data.draw(st.integers(0, len(shares) - 1)))
        one.merge(other)
        shares.append(one)
    assert shares[0].to_bytes() == whole.to_bytes()
    assert figures(metric, shares[0]) == figures(metric, whole)
    against = metric.against(whole)
    assert against is None or against.sum() > 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_sums_are_exact(values: list[float]) -> None:
    tally = Tally()
    for value in values:
        tally.add("sum", value)
    try:
        expected = math.fsum(values)
    except OverflowError:
        return
    assert tally.total("sum") == expected


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="error: got nan"):
        Tally().add("error", math.nan)


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a saved tally"):
        Tally.from_bytes(data)


def test_counts_grow() -> None:
    one, other = Tally(), Tally()
    one.count("labels", [1, 2])
    other.count("labels", [1, 0, 5])
    one.merge(other)
    other.merge(one)
    assert one.counts("labels").tolist() == [2, 2, 5]
    assert other.counts("labels").tolist() == [3, 2, 10]
    assert one.number("nothing") == 0


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(20, 40), st.integers(1, 39))
def test_moments_of_shares_are_those_of_the_set(seed: int, count: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    real, made = rng.normal(3, 2, (2, count, 5))
    at = 1 + cut % (count - 1)
    one, other = FeatureMoments.of(real[:at]), FeatureMoments.of(real[at:])
    both = frechet_distance(real, made)
    for merged in (one.merge(other), other.merge(one)):
        distance = merged.distance(FeatureMoments.of(made))
        assert distance == pytest.approx(both, rel=1e-9, abs=1e-9)
    with pytest.raises(ValueError, match="expected two or more"):
        FeatureMoments.of(real[:1]).distance(one)
