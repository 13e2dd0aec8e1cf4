"""Suppression by matrix products is greedy suppression wherever it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.export.adapters.suppression import STEPS, suppress

OVERLAPS = (0.3, 0.5, 0.7)


def greedy(boxes: np.ndarray, valid: np.ndarray, overlap: float) -> np.ndarray:
    """Return which boxes are kept, one after the other, in float32 as the graph computes."""
    keep = np.zeros(len(boxes), np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(len(boxes)):
        if not valid[i]:
            continue
        width = np.minimum(boxes[i, 2], boxes[:, 2]) - np.maximum(boxes[i, 0], boxes[:, 0])
        height = np.minimum(boxes[i, 3], boxes[:, 3]) - np.maximum(boxes[i, 1], boxes[:, 1])
        shared = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
        hits = shared > np.float32(overlap) * (area[i] + area - shared)
        if not (hits[:i] & (keep[:i] > 0)).any():
            keep[i] = 1
    return keep


@st.composite
def crowds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes made to suppress each other: chains, copies, lines, points, and padding."""
    count = draw(st.integers(1, 40))
    kind = draw(st.sampled_from(["chain", "cluster", "copies", "flat", "scattered"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = np.float32(100)
    if kind == "chain":  # each overlaps its neighbours alone
        step = draw(st.sampled_from([20.0, 30.0, 45.0]))
        left = np.arange(count) * step
        boxes = np.stack([left, 0 * left, left + side, 0 * left + side], 1)
        boxes = boxes[random.permutation(count)] if draw(st.booleans()) else boxes
    elif kind == "copies":
        boxes = np.tile([10.0, 10.0, 60.0, 70.0], (count, 1))
    else:
        centres = random.uniform(0, 300 if kind == "scattered" else 40, (count, 2))
        sizes = random.uniform(0 if kind == "flat" else 20, 80, (count, 2))
        if kind == "flat":
            sizes[random.random(count) < 0.5, 0] = 0
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    valid = (random.random(count) > draw(st.sampled_from([0.0, 0.2]))).astype(np.float32)
    return boxes.astype(np.float32), valid


@settings(max_examples=1500)
@given(crowds(), st.sampled_from(OVERLAPS))
def test_it_is_greedy_suppression_where_it_says_so(
    crowd: tuple[np.ndarray, np.ndarray], overlap: float
) -> None:
    boxes, valid = crowd
    expected = greedy(boxes, valid, overlap)
    keep, converged = suppress(torch.from_numpy(boxes), torch.from_numpy(valid), overlap)
    equal = bool((keep.numpy() == expected).all())
    if converged.item():
        assert equal
    # One step more than the longest chain is always enough, so the flag may not cry wolf.
    if len(boxes) <= STEPS - 1:
        assert converged.item()


def test_a_chain_that_is_too_long_is_told() -> None:
    left = np.arange(60, dtype=np.float32) * 30
    boxes = np.stack([left, 0 * left, left + 100, 0 * left + 100], 1)
    _, converged = suppress(torch.from_numpy(boxes), torch.ones(60), 0.5)
    assert converged.item() == 0


def test_groups_do_not_touch_each_other() -> None:
    random = np.random.default_rng(5)
    corner = random.uniform(0, 60, (3, 20, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 40], -1)
    valid = (random.random((3, 20)) > 0.2).astype(np.float32)
    keep, converged = suppress(torch.from_numpy(boxes), torch.from_numpy(valid), 0.5)
    assert converged.all()
    for group in range(3):
        np.testing.assert_array_equal(keep[group].numpy(), greedy(boxes[group], valid[group], 0.5))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_no_numbers_suppress_nobody(poison: float) -> None:
    boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (3, 1))
    boxes[0] = poison
    keep, _ = suppress(torch.from_numpy(boxes), torch.tensor([0.0, 1.0, 1.0]), 0.5)
    assert keep.tolist() == [0.0, 1.0, 0.0]
