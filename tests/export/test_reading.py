"""The parser's reading of a graph differs where the parser does, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.forms import FP16
from edgevision.export.as_read import Expected, check_reading
from edgevision.export.graph.reading import NOT_MODELLED, SOURCE, read_as_parsed
from edgevision.tasks.proof import Proof

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
DICE = np.random.default_rng(0)
AXIS = {"axes": np.array([1])}
NORM = {
    "scale": np.ones(4, np.float16),
    "bias": np.zeros(4, np.float16),
    "mean": np.zeros(4, np.float16),
    "variance": np.zeros(4, np.float16),
}


def graph(node: onnx.NodeProto, kind: int, stored: dict[str, Any]) -> onnx.ModelProto:
    """Return a graph of one node, with float32 at both ends."""
    value = helper.make_tensor_value_info
    given = [name for name in node.input if name and name not in stored]
    inputs = [value(f"{name}_in", FLOAT, None) for name in given]
    casts = [helper.make_node("Cast", [f"{name}_in"], [name], to=kind) for name in given]
    last = helper.make_node("Cast", ["y"], ["y_out"], to=FLOAT)
    held = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    outputs = [value("y_out", FLOAT, None)]
    made = helper.make_graph([*casts, node, last], "g", inputs, outputs, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {f"{name}_in": array for name, array in feeds.items()})[0]


def noise(*shape: int, scale: float = 1.0) -> Any:
    return (DICE.standard_normal(shape) * scale).astype(np.float32)


X = noise(1, 4, 8, 8)
PICTURE = {"x": X}
GRID = {"x": X, "grid": DICE.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32)}
PEAK = {"x": np.pad(X[:, :1] * 0 + 30, ((0, 0), (0, 3), (0, 0), (0, 0)))}
LARGE = {"x": noise(1, 4, 8, 8, scale=300.0)}
node = helper.make_node
PLANTED = {
    "linear grid": (node("GridSample", ["x", "grid"], ["y"], mode="linear"), FLOAT, {}, GRID),
    "cubic grid": (node("GridSample", ["x", "grid"], ["y"], mode="cubic"), FLOAT, {}, GRID),
    "dilated pool": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], dilations=[2, 2]), FLOAT, {}, PICTURE,
    ),
    "antialias": (
        node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1), FLOAT,
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)}, PICTURE,
    ),
    "axes of log-sum-exp": (
        node("ReduceLogSumExp", ["x", "axes"], ["y"]), FLOAT, AXIS, PICTURE,
    ),
    "large log-sum-exp": (
        node("ReduceLogSumExp", ["x"], ["y"]), HALF, {}, {"x": X * 0 + 20},
    ),
    "norm": (node("ReduceL2", ["x", "axes"], ["y"]), HALF, AXIS, LARGE),
    "squares": (
        node("ReduceSumSquare", ["x", "axes"], ["y"]), HALF, AXIS, {"x": X * 0 + 1e-4},
    ),
    "normalisation": (node("LpNormalization", ["x"], ["y"], axis=1), HALF, {}, LARGE),
    "odd global pool": (node("GlobalLpPool", ["x"], ["y"], p=1), FLOAT, {}, PICTURE),
    "log-softmax": (
        node("LogSoftmax", ["x"], ["y"], axis=1), HALF, {}, PEAK,
    ),
    "variance": (node("MeanVarianceNormalization", ["x"], ["y"]), HALF, {}, LARGE),
    "mean of two": (node("Mean", ["x", "z"], ["y"]), HALF, {}, {"x": X, "z": X}),
    "pool of large squares": (
        node("LpPool", ["x"], ["y"], kernel_shape=[2, 2]), HALF, {}, LARGE,
    ),
    "epsilon of a batch norm": (
        node("BatchNormalization", ["x", *NORM], ["y"], epsilon=1e-8), HALF, NORM, PICTURE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_difference_is_found_and_shows(name: str) -> None:
    planted, kind, stored, feeds = PLANTED[name]
    model = graph(planted, kind, stored)
    read, found = read_as_parsed(model)
    assert [difference.op_type for difference in found] == [planted.op_type]
    wanted, got = run(model, feeds), run(read, feeds)
    with np.errstate(all="ignore"):
        same = wanted.shape == got.shape and np.allclose(wanted, got, rtol=0.02, equal_nan=True)
    assert not same
    finding = findings(model, feeds, wanted)[0]
    assert (finding.rule, finding.severity) == ("reading", "error")
    assert finding.node == f"y ({planted.op_type})"
    assert SOURCE in finding.message
    assert finding.remedy


def findings(model: onnx.ModelProto, feeds: dict[str, Any], wanted: Any) -> list[Any]:
    """Return what is found where these answers are the golden ones."""
    proof = Proof()
    inputs = {f"{name}_in": array[np.newaxis] for name, array in feeds.items()}
    outputs = {"y_out": wanted[np.newaxis]}
    expected = Expected(inputs, outputs, proof.tolerances(FP16, outputs), proof, "golden")
    return check_reading(with_shapes(model, feeds), lambda: expected, {})


def with_shapes(model: onnx.ModelProto, feeds: dict[str, Any]) -> onnx.ModelProto:
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    value = helper.make_tensor_value_info
    del shaped.graph.input[:]
    shaped.graph.input.extend(value(f"{n}_in", FLOAT, a.shape) for n, a in feeds.items())
    return onnx.shape_inference.infer_shapes(shaped)


HARMLESS = {
    "grid": (node("GridSample", ["x", "grid"], ["y"]), FLOAT, {}, GRID),
    "nearest grid": (node("GridSample", ["x", "grid"], ["y"], mode="nearest"), FLOAT, {}, GRID),
    "pool": (node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3]), HALF, {}, PICTURE),
    "wide norm": (node("ReduceL2", ["x", "axes"], ["y"]), FLOAT, AXIS, LARGE),
    "small norm": (node("ReduceL2", ["x", "axes"], ["y"]), HALF, AXIS, PICTURE),
    "small sum": (node("ReduceLogSumExp", ["x"], ["y"]), FLOAT, {}, PICTURE),
    "even global pool": (node("GlobalLpPool", ["x"], ["y"], p=2), FLOAT, {}, PICTURE),
    "log-softmax": (node("LogSoftmax", ["x"], ["y"], axis=1), FLOAT, {}, PICTURE),
    "normalisation": (node("LpNormalization", ["x"], ["y"], axis=1), FLOAT, {}, LARGE),
    "variance": (node("MeanVarianceNormalization", ["x"], ["y"]), FLOAT, {}, PICTURE),
    "mean of two": (node("Mean", ["x", "z"], ["y"]), FLOAT, {}, {"x": X, "z": X}),
    "pool of squares": (node("LpPool", ["x"], ["y"], kernel_shape=[2, 2]), HALF, {}, PICTURE),
    "pool of magnitudes": (
        node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=1, pads=[1, 1, 0, 0]), HALF, {},
        PICTURE,
    ),
    "batch norm": (
        node("BatchNormalization", ["x", *NORM], ["y"]), HALF,
        {**NORM, "variance": np.ones(4, np.float16)}, PICTURE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_read_as_it_is_meant_gives_the_same(name: str) -> None:
    harmless, kind, stored, feeds = HARMLESS[name]
    model = graph(harmless, kind, stored)
    read, _ = read_as_parsed(model)
    wanted = run(model, feeds)
    np.testing.assert_allclose(run(read, feeds), wanted, rtol=2e-3, atol=2e-3)
    assert findings(model, feeds, wanted) == []


def test_what_is_not_modelled_is_listed_beside_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "what-ci-proves.md").read_text("utf-8")
    listed = [line[2:].rstrip(";.") for line in page.splitlines() if line.startswith("- ")]
    assert listed == list(NOT_MODELLED)


def test_a_reading_leaves_the_graph_alone() -> None:
    planted, kind, stored, _ = PLANTED["linear grid"]
    model = graph(planted, kind, stored)
    before = model.SerializeToString(deterministic=True)
    read_as_parsed(model)
    assert model.SerializeToString(deterministic=True) == before
