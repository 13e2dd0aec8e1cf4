"""INT8 in the graph: placement, scales, sensitivity, and the linter that guards them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.graph.observe import element_types, typed
from edgevision.export.graph.qdq_rules import lint_qdq
from edgevision.export.precision.calibration import METHODS
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.int8 import to_int8
from edgevision.export.precision.quantizer import prepare
from edgevision.export.precision.scales import half_up
from tests.parts.nets import frames, run

Make = Callable[..., onnx.ModelProto]
ALL = float("-inf")

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


def conv_feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.fixture
def block(made: Make) -> onnx.ModelProto:
    """A residual block: conv, relu, conv, add, and a transposed convolution."""
    rng = np.random.default_rng(5)
    weights = {
        "w0": rng.normal(size=(3, 3, 3, 3)).astype(np.float32),
        "b0": rng.normal(size=3).astype(np.float32),
        "w1": rng.normal(size=(3, 3, 1, 1)).astype(np.float32),
        "w2": rng.normal(size=(3, 5, 2, 2)).astype(np.float32),
    }
    return made(
        [
            ("Conv", ["x", "w0", "b0"], ["a"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["a"], ["r"], {}),
            ("Conv", ["r", "w1"], ["c"], {}),
            ("Add", ["c", "r"], ["s"], {}),
            ("ConvTranspose", ["s", "w2"], ["y"], {"strides": [2, 2]}),
        ],
        {"x": [1, 3, 8, 8]},
        weights,
        ["y"],
    )


def test_placement(block: onnx.ModelProto) -> None:
    graph = to_int8(block, conv_feeds(), min_snr_db=ALL).model.graph
    producers = {name: node for node in graph.node for name in node.output}
    stored = {i.name: i for i in graph.initializer}
    layers = {n.name: n for n in graph.node if n.op_type in ("Conv", "ConvTranspose")}
    for layer in layers.values():
        activation, weight = (producers[name] for name in layer.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert stored[weight.input[0]].data_type == TensorProto.INT8
        axis = next(a.i for a in weight.attribute if a.name == "axis")
        assert axis == (1 if layer.op_type == "ConvTranspose" else 0)
        assert list(stored[weight.input[1]].dims) == [stored[weight.input[0]].dims[axis]]
    assert layers["Conv0"].input[2] == "b0", "the bias must stay float"
    add = next(n for n in graph.node if n.op_type == "Add")
    assert list(add.input) == ["c", "r_dq"], "the identity branch is quantised, the other not"
    quantized = Counter(n.input[0] for n in graph.node if n.op_type == "QuantizeLinear")
    assert quantized == {"x": 1, "r": 1, "s": 1}


def test_weights_that_two_layers_share_have_a_scale_for_the_channels_of_each(made: Make) -> None:
    weights = {"w": np.random.default_rng(5).normal(size=(3, 3, 3, 3)).astype(np.float32)}
    tied = made(
        [("Conv", ["x", "w"], ["c"], {}), ("ConvTranspose", ["c", "w"], ["y"], {})],
        {"x": [1, 3, 8, 8]}, weights, ["y"],
    )  # fmt: skip
    quantized = to_int8(tied, conv_feeds(), min_snr_db=ALL)
    assert len(quantized.int8) == 2
    assert lint_qdq(quantized.model) == []
    feed = conv_feeds()[0]
    wanted = run(tied, feed)["y"]
    assert np.abs(run(quantized.model, feed)["y"] - wanted).max() < 0.1 * np.abs(wanted).max()


# Entropy clips the tails of random numbers, which hold more of their energy than those of images.
@pytest.mark.parametrize(
    ("method", "bar"),
    [("auto", 0.05), ("percentile", 0.05), ("mse", 0.05), ("minmax", 0.05), ("entropy", 0.2)],
)
def test_int8_stays_near_float(block: onnx.ModelProto, method: str, bar: float) -> None:
    feeds = conv_feeds(24)
    quantized = to_int8(block, feeds, method=method, min_snr_db=ALL)
    assert (len(quantized.int8), quantized.calibration.count) == (3, 24)
    wanted, found = run(block, feeds[0])["y"], run(quantized.model, feeds[0])["y"]
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < bar


def test_the_same_frames_give_the_same_bytes(fp32: onnx.ModelProto) -> None:
    first, second = (to_int8(fp32, frames(12)) for _ in range(2))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(
        deterministic=True
    )
    assert first.calibration == second.calibration
    assert to_int8(fp32, frames(11)).calibration.sha256 != first.calibration.sha256


def test_both_rests_share_their_scales_exactly(block: onnx.ModelProto) -> None:
    feeds = conv_feeds()
    host = to_int8(block, feeds, min_snr_db=ALL).model
    half = to_fp16(host, samples=feeds).model
    wide = {i.name: numpy_helper.to_array(i) for i in host.graph.initializer}
    narrow = {i.name: numpy_helper.to_array(i) for i in half.graph.initializer}
    scales = [name for name in wide if name.endswith("_scale")]
    assert len(scales) == 6
    for name in scales:
        np.testing.assert_array_equal(wide[name], narrow[f"{name}_fp16"].astype(np.float32))
    types = element_types(typed(half))
    for node in half.graph.node:
        if node.op_type == "DequantizeLinear":
            assert types[node.output[0]] == types[node.input[1]] == TensorProto.FLOAT16
    assert not lint_qdq(half)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=8))
def test_scales_round_up_to_float16(values: list[float]) -> None:
    scales = np.array(values)
    rounded = half_up(scales)
    assert np.all(rounded >= scales)
    assert np.all(rounded > 0)
    np.testing.assert_array_equal(rounded.astype(np.float16).astype(np.float32), rounded)
    fine = scales > 2.0**-14
    assert np.all(rounded[fine] <= scales[fine] * (1 + 2.0**-10))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_weights_are_within_half_a_step(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(4, 3, 1, 1)) * size).astype(np.float32)
    weights[0] = 0
    model = conv_model(weights)
    graph = to_int8(model, conv_feeds(2), min_snr_db=ALL).model.graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    scale = stored["w_scale"].reshape(-1, 1, 1, 1)
    error = np.abs(stored["w_q"] * scale - weights)
    assert np.all(error <= scale * 0.5001)


def conv_model(weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_layer_that_int8_ruins_stays_float(made: Make) -> None:
    # One channel a thousand times the other: one scale for both leaves the small one no levels.
    wide = np.array([[[[1000.0]]], [[[1.0]]]], np.float32).repeat(3, axis=1)
    sharp = np.array([[[[0.0]], [[1.0]]], [[[0.0]], [[-1.0]]]], np.float32)
    model = made(
        [("Conv", ["x", "w0"], ["a"], {}), ("Conv", ["a", "w1"], ["y"], {})],
        {"x": [1, 3, 8, 8]},
        {"w0": wide, "w1": sharp},
        ["y"],
    )
    quantized = to_int8(model, conv_feeds(8), recover=())
    assert list(quantized.kept_float) == ["Conv1"]
    assert "signal-to-noise" in quantized.kept_float["Conv1"]
    assert len(quantized.int8) == 1


def test_the_ends_stay_float_where_the_task_says_so(block: onnx.ModelProto) -> None:
    done = to_int8(block, conv_feeds(), min_snr_db=ALL, wide_ends=True)
    assert done.int8.keys() == {"Conv2"}
    assert done.kept_float["Conv0"].endswith("the first layer")
    assert done.kept_float["ConvTranspose4"].endswith("the last layer")


def test_signal_to_noise_is_what_numpy_says(block: onnx.ModelProto) -> None:
    feeds = conv_feeds(1)
    graph = typed(block)
    quantizer = prepare(graph, feeds, method="percentile", recover=())
    assert quantizer is not None
    quantized = quantizer.graph(quantizer.layers)
    probe = onnx.ModelProto()
    probe.CopyFrom(quantized)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info("a", 1, None))
    exact = onnx.ModelProto()
    exact.CopyFrom(block)
    exact.graph.output.append(helper.make_tensor_value_info("a", 1, None))
    wanted = run(exact, feeds[0])["a"].astype(np.float64)
    found = run(probe, feeds[0])["a"].astype(np.float64)
    assert quantizer.layers["Conv0"].snr_db == pytest.approx(
        10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()), abs=0.01
    )


def test_layers_asked_for_stay_float(block: onnx.ModelProto) -> None:
    quantized = to_int8(block, conv_feeds(), keep_float=["ConvTranspose", "Conv2"], min_snr_db=ALL)
    assert len(quantized.int8) == 1
    with pytest.raises(ExportError, match="called Covn"):
        to_int8(block, conv_feeds(), keep_float=["Covn"])


def test_graphs_with_other_layers_are_made_of_one_preparation(block: onnx.ModelProto) -> None:
    quantizer = prepare(typed(block), conv_feeds(), method="percentile")
    assert quantizer is not None
    before = quantizer.source.SerializeToString(deterministic=True)
    for kept in (["Conv0"], ["Conv2", "ConvTranspose4"], []):
        chosen = quantizer.layers.keys() - set(kept)
        wanted = to_int8(block, conv_feeds(), keep_float=kept, min_snr_db=ALL)
        assert wanted.int8.keys() == chosen
        assert quantizer.graph(chosen) == wanted.model
    assert quantizer.source.SerializeToString(deterministic=True) == before


def test_an_add_may_come_before_the_layer_that_shares_its_branch(made: Make) -> None:
    weights = {
        n: np.random.default_rng(len(n)).normal(size=(3, 3, 1, 1)).astype(np.float32)
        for n in ("w0", "w1")
    }
    model = made(
        [
            ("Relu", ["x"], ["r"], {}),
            ("Conv", ["x", "w0"], ["a"], {}),
            ("Add", ["a", "r"], ["s"], {}),
            ("Conv", ["r", "w1"], ["b"], {}),
            ("Add", ["b", "s"], ["y"], {}),
        ],
        {"x": [1, 3, 8, 8]},
        weights,
        ["y"],
    )
    graph = to_int8(model, conv_feeds(), min_snr_db=ALL).model.graph
    add = next(n for n in graph.node if n.name == "Add2")
    assert list(add.input) == ["a", "r_dq"]


@pytest.mark.parametrize(
    ("method", "faint"),
    [("percentile", 0.0), ("percentile", 1e-30), ("percentile", 1e-5), ("entropy", 1e-5)],
)
def test_a_faint_first_frame_changes_nothing(
    block: onnx.ModelProto, method: str, faint: float
) -> None:
    feed = conv_feeds(1)[0]
    feeds = [feed, {"x": feed["x"] * np.float32(faint)}]
    first, second = (
        to_int8(block, order, method=method, min_snr_db=ALL).model for order in (feeds, feeds[::-1])
    )
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_percentile_is_that_of_numpy(made: Make) -> None:
    # Eight values of a million stand far out; 99.999 % leaves ten of them aside.
    values = np.random.default_rng(0).uniform(-1, 1, (1, 1, 1000, 1000)).astype(np.float32)
    values[0, 0, 0, :8] = 90
    model = made([("Conv", ["x", "w"], ["y"], {})], {"x": [1, 1, 1000, 1000]},
                 {"w": np.ones((1, 1, 1, 1), np.float32)}, ["y"])  # fmt: skip
    feeds = np.split(values, 4, axis=2)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 250
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 250
    quantized = to_int8(model, [{"x": f} for f in feeds], method="percentile", min_snr_db=ALL).model
    scale = next(i for i in quantized.graph.initializer if i.name == "x_scale")
    # One bin of 2048 over 0 to 128.
    wanted = np.percentile(np.abs(values), 99.999)
    assert wanted <= numpy_helper.to_array(scale) * 127 <= wanted + 128 / 2048 + 1e-2


def test_stored_values_may_be_listed_as_inputs() -> None:
    model = conv_model(np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32))
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 3, 1, 1]))
    feeds = conv_feeds()
    quantized = to_int8(model, feeds, min_snr_db=ALL).model
    for graph in (quantized, to_fp16(model, samples=feeds).model):
        assert [i.name for i in graph.graph.input] == ["x"]
        np.testing.assert_allclose(run(graph, feeds[0])["y"], run(model, feeds[0])["y"], atol=0.1)


def test_a_vector_of_weights_is_no_layer(made: Make) -> None:
    model = made([("MatMul", ["x", "w"], ["y"], {})], {"x": [2, 4]},
                 {"w": np.ones(4, np.float32)}, ["y"])  # fmt: skip
    with pytest.raises(ExportError, match="nothing to quantise"):
        to_int8(model, [{"x": np.ones((2, 4), np.float32)}])


def test_nothing_to_quantise(made: Make) -> None:
    model = made([("Relu", ["x"], ["y"], {})], {"x": [1, 3, 8, 8]}, {}, ["y"])
    with pytest.raises(ExportError, match="nothing to quantise"):
        to_int8(model, conv_feeds())


@pytest.mark.parametrize("method", METHODS)
def test_no_samples(block: onnx.ModelProto, method: str) -> None:
    with pytest.raises(ExportError, match="none were given"):
        to_int8(block, [], method=method)


def test_unknown_method(block: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="got 'kl', expected one of auto, percentile"):
        to_int8(block, conv_feeds(), method="kl")


@pytest.mark.filterwarnings("default:INT8 was calibrated on:UserWarning")
def test_few_or_flat_frames_are_a_warning(block: onnx.ModelProto) -> None:
    flat = [{"x": np.zeros((1, 3, 8, 8), np.float32)}]
    with pytest.warns(UserWarning, match="on 4 frames; 1 of them are of one colour"):
        to_int8(block, [*conv_feeds(3), *flat], min_snr_db=ALL)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_not_finite_are_named(block: onnx.ModelProto, method: str) -> None:
    feed = conv_feeds(1)[0]
    feed["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(ExportError, match="tensor 'x' holds values that are not finite"):
        to_int8(block, [feed], method=method)


def test_lint_passes_our_own_graphs(fp32: onnx.ModelProto) -> None:
    assert lint_qdq(to_int8(fp32, frames(4)).model) == []


def broken(rule: str) -> onnx.ModelProto:
    """Return a graph with Q/DQ that breaks one of TensorRT's rules."""
    per_channel = rule in ("wrong axis", "activation per channel")
    weights = np.ones((4, 3, 1, 1), np.int8)
    zero = np.array(3 if rule == "zero point" else 0, np.uint8 if rule == "uint8" else np.int8)
    scale = np.array(0.0 if rule == "zero scale" else 0.1, np.float32)
    stored = {"s": scale, "z": zero, "w": weights, "ws": np.full(4, 0.1, np.float32),
              "wz": np.zeros(4, np.int8), "b": np.ones(4, np.int32),
              "bs": np.full(4, 0.01, np.float32)}  # fmt: skip
    axis = 1 if rule == "wrong axis" else 0
    if rule == "wrong axis":
        stored |= {"ws": np.full(3, 0.1, np.float32), "wz": np.zeros(3, np.int8)}
    if rule == "activation per channel":
        stored |= {"s": np.full(3, 0.1, np.float32), "z": np.zeros(3, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "Q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "DQ"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "WDQ", axis=axis),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], "BDQ", axis=0),
        helper.make_node("Conv", ["d", "wd", *(["bd"] if rule == "bias" else [])], ["y"], "conv"),
    ]
    if rule != "bias":
        del nodes[3]
    if rule == "computed scale":
        nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0))
        del stored["s"]
    if rule == "dynamic":
        nodes[0] = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "Q")
        del stored["s"], stored["z"]
    assert per_channel or rule
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 4, 8, 8])],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("rule", "node", "message"),
    [
        ("zero point", "Q", "zero point is not 0"),
        ("uint8", "Q", "quantises to UINT8"),
        ("zero scale", "Q", "not positive"),
        ("computed scale", "Q", "scale is computed"),
        ("bias", "BDQ", "int32 bias"),
        ("wrong axis", "WDQ", "axis 1 of Conv"),
        ("activation per channel", "Q", "scale per channel"),
        ("dynamic", "Q", "scales must be constants"),
    ],
)
def test_lint_names_the_node_and_the_rule(rule: str, node: str, message: str) -> None:
    found = {f.node: f.message for f in lint_qdq(broken(rule))}
    assert message in found[node]


def test_lint_has_nothing_to_say_of_good_pairs() -> None:
    assert lint_qdq(broken("none")) == []


def test_lint_reads_scales_of_constant_nodes() -> None:
    for rule, wanted in (("none", []), ("zero scale", ["scale", "scale"])):
        model = broken(rule)
        stored = list(model.graph.initializer)
        del model.graph.initializer[:]
        nodes = [helper.make_node("Constant", [], [i.name], value=i) for i in stored]
        nodes += model.graph.node
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        assert [f.rule for f in lint_qdq(model)] == wanted


def test_a_deconvolution_must_prove_more_than_a_convolution(block: onnx.ModelProto) -> None:
    proofs = to_int8(block, conv_feeds(), min_snr_db=ALL).int8
    snr_db = {name: float(proof.split()[-2]) for name, proof in proofs.items()}
    bar_db = snr_db["ConvTranspose4"] - 3
    quantized = to_int8(block, conv_feeds(), min_snr_db=bar_db)
    below = f"{proofs['ConvTranspose4']}: below its bar, {bar_db + 6:g} dB"
    assert quantized.kept_float == {"ConvTranspose4": below}
    assert quantized.int8.keys() == {"Conv0", "Conv2"}
    assert min(snr_db["Conv0"], snr_db["Conv2"]) > bar_db
    assert "ConvTranspose4" in to_int8(block, conv_feeds(), min_snr_db=bar_db - 4).int8
