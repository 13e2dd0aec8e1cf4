"""Bias correction: what a channel loses on average is given back, if that holds on other frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgevision.export.graph.observe import typed
from edgevision.export.precision.bias_correction import corrected, in_a_row
from edgevision.export.precision.placement import with_qdq
from edgevision.export.precision.quantizer import prepare
from edgevision.export.precision.scales import levels_of
from edgevision.export.precision.sensitivity import Noise, Trial, noises
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


def test_in_a_row_a_layer_loses_what_it_does_behind_layers_that_were_put_right(made: Make) -> None:
    rng = np.random.default_rng(5)
    stored = {f"w{i}": rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for i in range(2)}
    rows: list[tuple[str, list[str], list[str], dict[str, object]]] = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["r"], {}),
        ("Conv", ["r", "w1"], ["y"], {}),
    ]
    model = typed(made(rows, {"x": [1, 4, 6, 6]}, stored, ["y"]))
    feeds = [{"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)} for _ in range(4)]
    weights = {(name, 0): levels_of(values, 0) for name, values in stored.items()}
    scales = {"x": 0.1, "r": 0.1}
    whole = with_qdq(model, ["Conv0", "Conv2"], scales, weights, {})
    found = in_a_row(model, whole, ["Conv0", "Conv2"], feeds, {})
    (alone,) = noises(model, [Trial("Conv0", 0.1, weights["w0", 0])], feeds, {})
    np.testing.assert_allclose(found["Conv0"], alone.mean, atol=1e-6)

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.rint(values / 0.1).clip(-128, 127) * 0.1

    def product(name: str, values: np.ndarray, *, exact: bool) -> np.ndarray:
        kernel = stored[name] if exact else weights[name, 0].dequantized()
        return np.einsum("oi,nihw->nohw", kernel[:, :, 0, 0].astype(np.float64), values)

    for feed, lost in zip(feeds, found["Conv2"], strict=True):
        wanted = product("w0", feed["x"], exact=True)
        first = product("w0", rounded(feed["x"]), exact=False)
        first += (wanted - first).mean(axis=(0, 2, 3), keepdims=True)
        wanted = product("w1", np.maximum(wanted, 0), exact=True)
        second = product("w1", rounded(np.maximum(first, 0)), exact=False)
        np.testing.assert_allclose(lost, (wanted - second).mean(axis=(0, 2, 3)), atol=2e-3)
