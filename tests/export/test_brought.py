"""Graphs that bring Q/DQ: their weights are stored in int8, and their answers stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.precision.brought import store_int8, taken_as_int8
from tests.parts.nets import run


def graph(
    weights: np.ndarray, scale: np.ndarray, *, axis: int, order: list[int] | None = None
) -> onnx.ModelProto:
    """Return a MatMul between Q/DQ whose weights are stored in float, and may be turned."""
    stored = {"w": weights, "ws": scale, "wz": np.zeros(scale.shape, np.int8),
              "s": np.array(0.05, np.float32), "z": np.array(0, np.int8)}  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["v"], "WQ", axis=axis),
        helper.make_node("DequantizeLinear", ["v", "ws", "wz"], ["u"], "WDQ", axis=axis),
        helper.make_node("Transpose", ["u"], ["t"], "turn", perm=order or [0, 1]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "Q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "DQ"),
        helper.make_node("MatMul", ["d", "t" if order else "u"], ["y"], "layer"),
    ]
    if order is None:
        del nodes[2]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [1, 2, 4])],
        [helper.make_tensor_value_info("y", 1, [1, 2, 3])],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_weights_are_stored_in_int8_and_answers_stay(
    seed: int, is_turned: bool, per_channel: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(3, 4) if is_turned else (4, 3)).astype(np.float32)
    axis = 0 if is_turned else 1
    scale = rng.uniform(0.005, 0.05, 3 if per_channel else ()).astype(np.float32)
    order = [1, 0] if is_turned else None
    model = graph(weights, scale, axis=axis, order=order)
    feeds = {"x": rng.normal(size=(1, 2, 4)).astype(np.float32)}
    wanted = run(model, feeds)["y"]
    store_int8(model)
    onnx.checker.check_model(model, full_check=True)
    ops = [n.op_type for n in model.graph.node]
    assert ops == ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear", "MatMul"]
    (levels,) = (i for i in model.graph.initializer if len(i.dims) == 2)
    assert levels.data_type == onnx.TensorProto.INT8
    np.testing.assert_array_equal(run(model, feeds)["y"], wanted)
    taken = taken_as_int8(model)
    assert taken.int8 == {"layer": "scales as the model brings them"}
    assert (taken.calibration, taken.kept_float) == (None, {})


def test_what_is_not_symmetric_int8_stays_for_the_linter() -> None:
    model = graph(np.ones((4, 3), np.float32), np.array(0.1, np.float32), axis=1)
    (zero,) = (i for i in model.graph.initializer if i.name == "wz")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), "wz"))
    before = model.SerializeToString(deterministic=True)
    store_int8(model)
    assert model.SerializeToString(deterministic=True) == before
    with pytest.raises(ExportError, match="WQ: its zero point is not 0"):
        taken_as_int8(model)


def test_a_scale_that_is_not_float_is_refused() -> None:
    model = graph(np.ones((4, 3), np.float32), np.array(1, np.float32), axis=1)
    for name in ("q", "v"):
        node = next(n for n in model.graph.node if n.output[0] == name)
        node.input[1] = "whole"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int32), "whole"))
    with pytest.raises(ExportError, match=r"WQ\): y_scale has inconsistent type"):
        taken_as_int8(model)


def test_a_layer_without_q_and_dq_is_told_and_none_with_them_is_refused() -> None:
    model = graph(np.ones((4, 3), np.float32), np.array(0.1, np.float32), axis=1)
    model.graph.node[-1].output[0] = "h"
    model.graph.node.append(helper.make_node("MatMul", ["h", "head"], ["y"], "head"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "head"))
    taken = taken_as_int8(model)
    assert taken.kept_float == {"head": "the model brings no Q/DQ for it"}
    model.graph.node[-2].input[1] = "w"
    with pytest.raises(ExportError, match=r"around no layer.*fake_quantize.*--calibration DIR"):
        taken_as_int8(model)
