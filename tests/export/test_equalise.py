"""Cross-layer equalisation: the same answers from weights that INT8 loses less of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgevision.export.graph.observe import typed
from edgevision.export.layer_compare import Opened, compare_layers
from edgevision.export.precision.equalise import equalised
from edgevision.export.precision.quantizer import prepare
from tests.parts.nets import run

Make = Callable[..., onnx.ModelProto]
Rows = list[tuple[str, list[str], list[str], dict[str, object]]]

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [{"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(count)]


def weights_of(rows: Rows, seed: int, spread: float) -> dict[str, np.ndarray]:
    """Return weights and biases w0, b0, ... for the Convs of `rows`, made uneven by channel."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for op, inputs, _, options in rows:
        if op not in ("Conv", "ConvTranspose"):
            continue
        made, read, kernel, group = options.pop("sizes")  # type: ignore[misc]
        shape = (made, read // group, kernel, kernel)
        if op == "ConvTranspose":
            shape = (read, made // group, kernel, kernel)
        wide = spread ** rng.uniform(-0.5, 0.5, made)
        axis = (1, -1, 1, 1) if op == "ConvTranspose" else (-1, 1, 1, 1)
        if op == "ConvTranspose" and group > 1:
            wide, axis = np.ones(1), (1, 1, 1, 1)
        values = rng.normal(size=shape) * wide.reshape(axis) / np.sqrt(read // group * kernel**2)
        found[inputs[1]] = values.astype(np.float32)
        found[inputs[2]] = (rng.normal(size=made) * np.resize(wide, made) * 0.2).astype(np.float32)
    return found


def inverted_residual(activation: str = "Clip") -> Rows:
    """Two blocks of MobileNetV2 with what stands between layers elsewhere: gates, pools, skips."""
    ends = ["zero", "six"] if activation == "Clip" else []
    return [
        ("Conv", ["x", "w0", "b0"], ["stem"], {"sizes": (6, 4, 3, 1), "pads": [1] * 4}),
        ("Conv", ["stem", "w1", "b1"], ["wide"], {"sizes": (12, 6, 1, 1)}),
        (activation, ["wide", *ends], ["wide_a"], {}),
        ("Conv", ["wide_a", "w2", "b2"], ["deep"],
         {"sizes": (12, 12, 3, 12), "group": 12, "pads": [1] * 4}),
        (activation, ["deep", *ends], ["deep_a"], {}),
        ("GlobalAveragePool", ["deep_a"], ["mean"], {}),
        ("Conv", ["mean", "w3", "b3"], ["squeezed"], {"sizes": (12, 12, 1, 1)}),
        ("Sigmoid", ["squeezed"], ["gate"], {}),
        ("Mul", ["deep_a", "gate"], ["gated"], {}),
        ("Conv", ["gated", "w4", "b4"], ["narrow"], {"sizes": (6, 12, 1, 1)}),
        ("Add", ["stem", "narrow"], ["sum"], {}),
        ("MaxPool", ["sum"], ["small"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ConvTranspose", ["small", "w5", "b5"], ["up"],
         {"sizes": (8, 6, 2, 1), "strides": [2, 2]}),
        ("LeakyRelu", ["up"], ["up_a"], {"alpha": 0.1}),
        ("Concat", ["up_a", "sum", "x"], ["both"], {"axis": 1}),
        ("Conv", ["both", "w6", "b6"], ["mixed"], {"sizes": (4, 18, 3, 2), "group": 2,
         "pads": [1] * 4}),
        ("Relu", ["mixed"], ["mixed_a"], {}),
        ("Conv", ["mixed_a", "w7", "b7"], ["y"], {"sizes": (3, 4, 1, 1)}),
    ]  # fmt: skip


def net(made: Make, rows: Rows, *, seed: int = 0, spread: float = 100.0) -> onnx.ModelProto:
    stored = weights_of(rows, seed, spread)
    stored |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    return typed(made(rows, {"x": [1, 4, 8, 8]}, stored, [rows[-1][2][0]]))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["Clip", "Relu"]))
def test_float_answers_stay_but_for_rounding(made: Make, seed: int, activation: str) -> None:
    model = net(made, inverted_residual(activation), seed=seed)
    done = equalised(model, feeds(), {})
    # A ReLU6 is held on what was measured; others everywhere.
    for feed in feeds() if activation == "Clip" else [*feeds(), *feeds(5)]:
        wanted = run(model, feed)["y"]
        found = run(done.model, feed)["y"]
        assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_int8_loses_less(made: Make) -> None:
    for seed in range(2):
        model = net(made, inverted_residual("Relu"), seed=seed)
        better = equalised(model, feeds(), {}).model
        noise = []
        for graph in (model, better):
            quantizer = prepare(graph, feeds(8), method="minmax", recover=())
            assert quantizer is not None
            whole = quantizer.graph(quantizer.layers)
            errors = [run(whole, f)["y"] - run(model, f)["y"] for f in feeds(8)]
            noise.append(float(np.mean(np.square(errors))))
        assert noise[1] < 0.7 * noise[0], seed


def test_a_clip_that_binds_keeps_its_channel(made: Make) -> None:
    rows: Rows = [
        ("Conv", ["x", "w0", "b0"], ["a"], {"sizes": (4, 4, 1, 1)}),
        ("Clip", ["a", "zero", "six"], ["c"], {}),
        ("Conv", ["c", "w1", "b1"], ["y"], {"sizes": (4, 4, 1, 4), "group": 4}),
    ]
    model = net(made, rows, spread=1.0)
    stored = {i.name: i for i in model.graph.initializer}
    before = np.diag([10, 0.1, 1, 0.01]).astype(np.float32).reshape(4, 4, 1, 1)
    stored["w0"].CopyFrom(numpy_helper.from_array(before, "w0"))
    stored["b0"].CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), "b0"))
    done = equalised(model, feeds(), {})
    found = {i.name: numpy_helper.to_array(i) for i in done.model.graph.initializer}
    scale = np.diag(found["w0"][:, :, 0, 0]) / np.diag(before[:, :, 0, 0])
    assert scale[0] == 1
    assert done.channels == 3
    largest = np.max([np.maximum(f["x"][0, i] * before[i, i, 0, 0], 0).max() for f in feeds()
                      for i in range(4)])  # fmt: skip
    assert largest > 6
    for feed in feeds():
        np.testing.assert_allclose(
            run(done.model, feed)["y"], run(model, feed)["y"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("between", ["HardSwish", "Sigmoid", "Softmax"])
def test_what_is_not_linear_keeps_its_scale(made: Make, between: str) -> None:
    rows: Rows = [
        ("Conv", ["x", "w0", "b0"], ["a"], {"sizes": (4, 4, 1, 1)}),
        (between, ["a"], ["c"], {}),
        ("Conv", ["c", "w1", "b1"], ["y"], {"sizes": (4, 4, 1, 4), "group": 4}),
    ]
    model = net(made, rows)
    assert equalised(model, feeds(), {}).channels == 0


def test_layers_of_an_equalised_graph_are_compared_as_the_net_was_trained(made: Make) -> None:
    model = net(made, inverted_residual("Relu"))
    quantizer = prepare(model, feeds(8), method="minmax", recover=("equalise",))
    assert quantizer is not None
    assert quantizer.calibration.recovery
    graphs = [Opened(typed(graph), {}, None) for graph in (model, quantizer.graph([]))]
    for difference in compare_layers(*graphs, feeds(1)[0]):
        assert difference.off < 1e-4, difference
