"""Learnt rounding: levels whose errors cancel over what a layer reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgevision.export.graph.observe import typed
from edgevision.export.precision.rounding import learnt
from edgevision.export.precision.scales import Levels, levels_of
from edgevision.export.precision.sensitivity import Trial, noises

Make = Callable[..., onnx.ModelProto]

CONVS: list[tuple[dict[str, object], tuple[int, ...]]] = [
    ({"pads": [1] * 4}, (6, 4, 3, 3)),
    ({"strides": [2, 2], "dilations": [2, 2], "pads": [2, 1, 0, 1]}, (6, 4, 3, 3)),
    ({"group": 4, "auto_pad": "SAME_UPPER"}, (4, 1, 3, 3)),
    ({"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}, (6, 2, 2, 2)),
]


def smooth(count: int, *shape: int) -> list[dict[str, np.ndarray]]:
    """Return feeds whose neighbours are alike, as those of pictures are."""
    rng = np.random.default_rng(0)
    drawn = (np.cumsum(rng.normal(size=shape), axis=-1) + 3 for _ in range(count))
    return [{"x": np.maximum(each, 0).astype(np.float32)} for each in drawn]


def coarse(weights: np.ndarray, axis: int) -> Levels:
    """Return levels of so few steps that rounding matters."""
    fine = levels_of(weights, axis)
    scales = fine.scales * 16
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    return Levels(np.rint(weights / scales.reshape(shape)).astype(np.int8), scales, axis)


def gained_db(model: onnx.ModelProto, node: str, weights: np.ndarray, axis: int,
              feeds: list[dict[str, np.ndarray]]) -> float:  # fmt: skip
    levels = coarse(weights, axis)
    scale = float(max(np.abs(feed["x"]).max() for feed in feeds)) / 127
    first, second = (learnt(model, {node: (scale, levels)}, feeds[:8], {}) for _ in range(2))
    np.testing.assert_array_equal(first[node].values, second[node].values)
    assert np.abs(first[node].dequantized() - weights).max() <= levels.scales.max() * 1.001
    both = [Trial(node, scale, levels), Trial(node, scale, first[node])]
    before, after = noises(model, both, feeds[8:], {})
    return after.snr_db() - before.snr_db()


@pytest.mark.parametrize(("given", "shape"), CONVS)
def test_convolutions_lose_less(
    made: Make, given: dict[str, object], shape: tuple[int, ...]
) -> None:
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = typed(made([("Conv", ["x", "w"], ["y"], dict(given))], {"x": [1, 4, 16, 16]},
                       {"w": weights}, ["y"]))  # fmt: skip
    assert gained_db(model, "Conv0", weights, 0, smooth(12, 1, 4, 16, 16)) > 1


@pytest.mark.parametrize(
    ("op", "given", "shape", "axis"),
    [("Gemm", {"transB": 1}, (6, 32), 0), ("Gemm", {}, (32, 6), 1), ("MatMul", {}, (32, 6), 1)],
)
def test_products_lose_less(
    made: Make, op: str, given: dict[str, object], shape: tuple[int, int], axis: int
) -> None:
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = typed(
        made([(op, ["x", "w"], ["y"], dict(given))], {"x": [16, 32]}, {"w": weights}, ["y"])
    )
    assert gained_db(model, f"{op}0", weights, axis, smooth(12, 16, 32)) > 1


def test_transposed_convolutions_are_left_out(made: Make) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 3, 2, 2)).astype(np.float32)
    model = typed(made([("ConvTranspose", ["x", "w"], ["y"], {})], {"x": [1, 4, 8, 8]},
                       {"w": weights}, ["y"]))  # fmt: skip
    levels = {"ConvTranspose0": (0.1, levels_of(weights, 1))}
    assert learnt(model, levels, smooth(1, 1, 4, 8, 8), {}) == {}
