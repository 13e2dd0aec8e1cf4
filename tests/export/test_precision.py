"""FP16 in the graph: types that fit, ranges that are watched, boundaries that stay."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from torch import Tensor, nn

from edgevision.bundle.tensors import DType, ShapeProfile, TensorSpec
from edgevision.errors import ExportError
from edgevision.export.graph.capture import capture, serialized
from edgevision.export.graph.observe import element_types, largest_magnitudes, typed
from edgevision.export.precision.fp16 import to_fp16
from tests.parts.nets import frames, run

Make = Callable[..., onnx.ModelProto]


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    return element_types(typed(model))


def test_a_net_becomes_half_with_its_boundary_kept(fp32: onnx.ModelProto) -> None:
    half = to_fp16(fp32, samples=frames(2))
    assert half.kept_fp32 == {}
    types = types_of(half.model)
    assert types["frame"] == types["classes"] == TensorProto.UINT8
    computed = [types[name] for node in half.model.graph.node for name in node.output]
    assert TensorProto.FLOAT not in computed
    assert Counter(n.op_type for n in half.model.graph.node)["Cast"] == 2
    for feed in frames(3):
        same = run(fp32, feed)["classes"] == run(half.model, feed)["classes"]
        assert same.mean() > 0.99


def test_the_given_model_is_not_changed(fp32: onnx.ModelProto) -> None:
    before = fp32.SerializeToString(deterministic=True)
    to_fp16(fp32, samples=frames(1))
    assert fp32.SerializeToString(deterministic=True) == before


def test_float_inputs_and_outputs_stay_float32(made: Make) -> None:
    model = made(
        [
            ("Mul", ["x", "w"], ["y"], {}),
            ("Relu", ["y"], ["z"], {}),
        ],
        {"x": [1, 4]},
        {"w": np.array([1.5], np.float32)},
        ["y", "z"],
    )
    feed = {"x": np.array([[-1, 2, 0.1, 3]], np.float32)}
    half = to_fp16(model, samples=[feed]).model
    types = types_of(half)
    assert types["x"] == types["y"] == types["z"] == TensorProto.FLOAT
    wanted, found = run(model, feed), run(half, feed)
    for name in ("y", "z"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-3)


def test_nodes_near_the_end_of_float16_stay_float32(made: Make) -> None:
    model = made(
        [
            ("Mul", ["x", "big"], ["y"], {}),
            ("Mul", ["y", "small"], ["z"], {}),
            ("Relu", ["z"], ["r"], {}),
        ],
        {"x": [1, 4]},
        {"big": np.array([1e5], np.float32), "small": np.array([1e-5], np.float32)},
        ["r"],
    )
    feed = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    half = to_fp16(model, samples=[feed])
    assert set(half.kept_fp32) == {"Mul0", "Mul1"}
    assert "4e+05" in half.kept_fp32["Mul0"]
    np.testing.assert_allclose(run(half.model, feed)["r"], run(model, feed)["r"], rtol=2e-3)


def test_an_overflow_on_frames_is_found_whatever_its_sign(made: Make) -> None:
    model = made([("Exp", ["x"], ["e"], {}), ("Neg", ["e"], ["n"], {})], {"x": [1, 2]}, {}, ["n"])
    kept = to_fp16(model, samples=[{"x": np.array([[0, 12]], np.float32)}]).kept_fp32
    assert set(kept) == {"Exp0", "Neg1"}
    assert to_fp16(model, samples=[{"x": np.zeros((1, 2), np.float32)}]).kept_fp32 == {}


def test_masks_of_minus_infinity_like_values_stay_float32(made: Make) -> None:
    model = made(
        [("Add", ["x", "mask"], ["y"], {}), ("Softmax", ["y"], ["s"], {"axis": 1})],
        {"x": [1, 3]},
        {"mask": np.array([[0, -1e9, 0]], np.float32)},
        ["s"],
    )
    feed = {"x": np.array([[1, 5, 2]], np.float32)}
    half = to_fp16(model, samples=[feed])
    assert "Add0" in half.kept_fp32
    np.testing.assert_allclose(run(half.model, feed)["s"], run(model, feed)["s"], atol=1e-3)


def test_nodes_asked_for_stay_float32_with_one_cast_each_way(made: Make) -> None:
    model = made(
        [
            ("Relu", ["x"], ["a"], {}),
            ("Softmax", ["a"], ["b"], {"axis": 1}),
            ("Exp", ["a"], ["c"], {}),
            ("Add", ["b", "c"], ["d"], {}),
        ],
        {"x": [1, 3]},
        {},
        ["d"],
    )
    feed = {"x": np.array([[1, 2, 3]], np.float32)}
    half = to_fp16(model, samples=[feed], keep_fp32=["Softmax", "Exp2"])
    assert set(half.kept_fp32) == {"Softmax1", "Exp2"}
    casts = Counter(n.input[0] for n in half.model.graph.node if n.op_type == "Cast")
    assert max(casts.values()) == 1, "a tensor is cast twice to one type"
    chains = {n.output[0] for n in half.model.graph.node if n.op_type == "Cast"} & set(casts)
    assert not chains, "a Cast reads a Cast"


def test_an_unknown_name_is_an_error(fp32: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="called Sotfmax"):
        to_fp16(fp32, samples=frames(1), keep_fp32=["Sotfmax"])


def test_resize_keeps_its_scales(made: Make) -> None:
    model = made(
        [("Resize", ["x", "", "scales"], ["y"], {"mode": "nearest"})],
        {"x": [1, 1, 2, 2]},
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        ["y"],
    )
    feed = {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)}
    half = to_fp16(model, samples=[feed]).model
    np.testing.assert_array_equal(run(half, feed)["y"], run(model, feed)["y"])
    (resize,) = (n for n in half.graph.node if n.op_type == "Resize")
    assert types_of(half)[resize.input[2]] == TensorProto.FLOAT


def test_subgraphs_are_refused() -> None:
    helper = onnx.helper
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])],
        "body",
        [],
        [helper.make_tensor_value_info("o", 1, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], name="branch", then_branch=body, else_branch=body)],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", 1, [1]),
        ],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ExportError, match=r"'branch' \(If\) holds a subgraph"):
        to_fp16(model, samples=[])


def test_magnitudes_are_those_of_numpy(made: Make) -> None:
    model = typed(made([("Neg", ["x"], ["y"], {})], {"x": [2, 3]}, {}, ["y"]))
    feeds = [{"x": np.full((2, 3), v, np.float32)} for v in (1, -7, 3)]
    assert largest_magnitudes(model, ["y"], feeds, {}) == {"y": 7.0}
    broken = [{"x": np.full((2, 3), np.nan, np.float32)}]
    assert largest_magnitudes(model, ["y"], broken, {}) == {"y": np.inf}


@pytest.mark.parametrize("place", [0, 1, 150, 299])
def test_one_nan_among_many_values_is_seen(made: Make, place: int) -> None:
    model = typed(made([("Neg", ["x"], ["y"], {})], {"x": [1, 300]}, {}, ["y"]))
    feed = {"x": np.ones((1, 300), np.float32)}
    feed["x"][0, place] = np.nan
    assert largest_magnitudes(model, ["y"], [feed], {}) == {"y": np.inf}


def test_a_vanished_epsilon_does_not_divide_by_zero(made: Make) -> None:
    model = made(
        [
            ("ReduceSumSquare", ["x"], ["s"], {"keepdims": 1}),
            ("Add", ["s", "eps"], ["e"], {}),
            ("Sqrt", ["e"], ["q"], {}),
            ("Div", ["x", "q"], ["n"], {}),
            ("Relu", ["n"], ["y"], {}),
        ],
        {"x": [1, 4]},
        {"eps": np.array(1e-12, np.float32)},
        ["y"],
    )
    half = to_fp16(model, samples=[{"x": np.array([[1, -2, 0.5, 3]], np.float32)}])
    assert set(half.kept_fp32) == {"ReduceSumSquare0", "Add1", "Sqrt2", "Div3"}
    zeros = {"x": np.zeros((1, 4), np.float32)}
    np.testing.assert_array_equal(run(half.model, zeros)["y"], zeros["x"])


def test_scales_that_vanish_in_half_keep_their_pair_wide() -> None:
    helper = onnx.helper
    pair = ["s", "z"]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", *pair], ["q"], "Q"),
            helper.make_node("DequantizeLinear", ["q", *pair], ["d"], "DQ"),
            helper.make_node("Relu", ["d"], ["y"], "relu"),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3])],
        [helper.make_tensor_value_info("y", 1, [1, 3])],
        [
            onnx.numpy_helper.from_array(np.array(1e-8, np.float32), "s"),
            onnx.numpy_helper.from_array(np.array(0, np.int8), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feed = {"x": np.array([[1e-6, 5e-7, 1e-7]], np.float32)}
    half = to_fp16(model, samples=[feed])
    assert set(half.kept_fp32) == {"Q", "DQ"}
    np.testing.assert_allclose(run(half.model, feed)["y"], run(model, feed)["y"], atol=6e-8)


def test_arithmetic_on_shapes_stays_exact() -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["shape"], "shape"),
            helper.make_node("Cast", ["shape"], ["sides"], "sides", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sides", "factor"], ["wide"], "wide"),
            helper.make_node("Cast", ["wide"], ["sizes"], "sizes", to=TensorProto.INT64),
            helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], "resize", mode="nearest"),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, 2051, 2])],
        [helper.make_tensor_value_info("y", 1, [1, 1, "h", "w"])],
        [onnx.numpy_helper.from_array(np.array([1, 1, 1.3, 1], np.float32), "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feed = {"x": np.zeros((1, 1, 2051, 2), np.float32)}
    half = to_fp16(model, samples=[feed]).model
    assert run(half, feed)["y"].shape == run(model, feed)["y"].shape == (1, 1, 2666, 2)


def test_integers_reach_a_float32_node_without_a_detour() -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["i"], ["f"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "k"], ["y"], "mul"),
        ],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT32, [3])],
        [
            helper.make_tensor_value_info("y", 1, [3]),
            helper.make_tensor_value_info("f", 1, [3]),
        ],
        [onnx.numpy_helper.from_array(np.array(0.5, np.float32), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feed = {"i": np.array([2049, 4097, 3], np.int32)}
    half = to_fp16(model, samples=[feed], keep_fp32=["mul"]).model
    for name, wanted in run(model, feed).items():
        np.testing.assert_array_equal(run(half, feed)[name], wanted)


def test_a_graph_without_float_values_passes(made: Make) -> None:
    model = made([("ArgMax", ["x"], ["y"], {"axis": 1})], {"x": [1, 4]}, {}, [])
    model.graph.output.append(onnx.helper.make_tensor_value_info("y", TensorProto.INT64, [1, 1]))
    assert to_fp16(model, samples=[{"x": np.zeros((1, 4), np.float32)}]).kept_fp32 == {}


def test_constants_of_every_notation_become_half(made: Make) -> None:
    model = made(
        [("Constant", [], ["k"], {"value_float": 3.0}), ("Mul", ["x", "k"], ["y"], {})],
        {"x": [1, 4]},
        {},
        ["y"],
    )
    feed = {"x": np.array([[1, 2, 3, 4]], np.float32)}
    half = to_fp16(model, samples=[feed])
    assert half.kept_fp32 == {}
    np.testing.assert_array_equal(run(half.model, feed)["y"], 3 * feed["x"])


@pytest.mark.parametrize("reduction", ["ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"])
def test_reductions_with_inner_sums_stay_float32(made: Make, reduction: str) -> None:
    model = made(
        [
            ("Mul", ["x", "w"], ["y"], {}),
            (reduction, ["y"], ["z"], {"keepdims": 1}),
            ("Div", ["y", "z"], ["q"], {}),
        ],
        {"x": [1, 4]},
        {"w": np.array([1.5], np.float32)},
        ["q"],
    )
    half = to_fp16(model, samples=[{"x": np.array([[1, 2, 3, 4]], np.float32)}])
    assert half.kept_fp32 == {f"{reduction}1": "its inner sums may overflow float16"}


class Reader(nn.Module):
    """A recurrent layer along the width, and a class for each place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 24, (8, 3))
        self.recurrent = nn.LSTM(24, 16, batch_first=True)
        self.logits = nn.Linear(16, 20)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.features(x).squeeze(2).transpose(1, 2)
        y: Tensor = self.logits(self.recurrent(rows)[0])
        return y


def test_a_recurrent_net_with_an_open_batch_loads_in_half(tmp_path: Path) -> None:
    spec = TensorSpec("x", DType.FLOAT32, (-1, 1, 8, 16))
    profiles = {"x": ShapeProfile((1, 1, 8, 16), (2, 1, 8, 16), (4, 1, 8, 16))}
    graph = capture(Reader(), (spec,), ("y",), profiles)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 1, 8, 16)).astype(np.float32)}
    half = to_fp16(graph, samples=[feed], profiles=profiles).model
    file = tmp_path / "half.onnx"
    file.write_bytes(serialized(half))
    # A process of its own: ONNX Runtime 1.32 died of this graph, and would take the tests along.
    load = (
        "import sys; from pathlib import Path; from edgevision.runtime.backends.ort import "
        "OrtProgram; OrtProgram(Path(sys.argv[1]).read_bytes())"
    )
    assert subprocess.run([sys.executable, "-c", load, str(file)], check=False).returncode == 0
