"""Bias correction: what a channel loses on average is given back, if that holds on other frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgevision.export.graph.observe import typed
from edgevision.export.precision.bias_correction import corrected
from edgevision.export.precision.quantizer import prepare
from edgevision.export.precision.sensitivity import Noise
from tests.parts.nets import run

Make = Callable[..., onnx.ModelProto]

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


def noise(mean: np.ndarray, spread: float = 0.1, count: int = 100) -> Noise:
    """Return noise whose channels have `mean`, float64[samples, channels]."""
    power = count * (mean**2 + spread**2).sum(axis=1)
    return Noise(np.full(len(mean), 1e4), power, mean, np.full(len(mean), float(count)))


def test_a_lasting_loss_is_given_back() -> None:
    before = noise(np.tile([0.5, -0.25, 0.0], (8, 1)))
    bias, after = corrected(before)
    np.testing.assert_allclose(bias, [0.5, -0.25, 0])
    np.testing.assert_allclose(after.noise, 100 * 3 * 0.1**2)
    assert after.snr_db() > before.snr_db() + 10


def test_a_loss_that_other_frames_do_not_have_is_left() -> None:
    drawn = np.random.default_rng(0).normal(size=(8, 3)) * 0.1
    for mean in (drawn, np.tile([0.5], (1, 1)), np.zeros((8, 0))):
        before = noise(mean)
        assert corrected(before) == (None, before)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
def test_channels_come_out_right_on_average(made: Make, op: str, with_bias: bool) -> None:
    rng = np.random.default_rng(3)
    dims = [] if op == "Gemm" else [6, 6]
    weights = {"w": rng.normal(size=(4, 4, *([1, 1] if dims else []))).astype(np.float32)}
    weights |= {"b": np.arange(4, dtype=np.float32)} if with_bias else {}
    model = typed(made([(op, ["x", *weights], ["y"], {})], {"x": [8, 4, *dims]}, weights, ["y"]))
    # Always near 1: what rounding takes from a weight, it takes from each answer.
    feeds = [{"x": rng.uniform(0.9, 1.1, (8, 4, *dims)).astype(np.float32)} for _ in range(32)]
    lost = []
    for recover in ((), ("correct",)):
        quantizer = prepare(model, feeds, method="minmax", recover=recover)
        assert quantizer is not None
        graph = quantizer.graph(quantizer.layers)
        errors = [run(graph, feed)["y"] - run(model, feed)["y"] for feed in feeds]
        axes = (0, 1, *range(3, 3 + len(dims)))
        lost.append(np.abs(np.mean(errors, axis=axes)).max())
    assert lost[1] < lost[0] / 3


def test_what_relu_cuts_off_the_noise_of_layers_before_is_given_back(made: Make) -> None:
    rng = np.random.default_rng(5)
    rows: list[tuple[str, list[str], list[str], dict[str, object]]] = []
    weights = {}
    for i in range(4):
        weights[f"w{i}"] = (rng.normal(size=(8, 8, 1, 1)) / 2).astype(np.float32)
        # Far below 0 in half of the channels: there noise alone passes the ReLU.
        weights[f"b{i}"] = np.where(np.arange(8) % 2, -1.0, 0.2).astype(np.float32)
        rows.append(("Conv", [f"r{i}", f"w{i}", f"b{i}"], [f"c{i}"], {}))
        rows.append(("Relu", [f"c{i}"], [f"r{i + 1}"], {}))
    model = typed(made(rows, {"r0": [1, 8, 6, 6]}, weights, ["r4"]))
    feeds = [{"r0": rng.normal(size=(1, 8, 6, 6)).astype(np.float32)} for _ in range(64)]
    lost = []
    for recover in ((), ("correct",)):
        quantizer = prepare(model, feeds[:32], method="minmax", recover=recover)
        assert quantizer is not None
        graph = quantizer.graph(quantizer.layers)
        errors = [run(graph, feed)["r4"] - run(model, feed)["r4"] for feed in feeds[32:]]
        lost.append(np.abs(np.mean(errors, axis=(0, 1, 3, 4))).max())
    assert lost[1] < 0.7 * lost[0]
