"""QuantizeLinear of float16 is computed by the standard, whatever this ONNX Runtime does itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.export.graph.capture import serialized
from edgevision.export.precision import half_rounding
from edgevision.runtime.session import Session

VALUES = (np.random.default_rng(0).standard_normal((64, 16)) * 3).astype(np.float16)
SCALE = np.float16(0.05)
TENSORS = {"x": VALUES}


def _graph(*, in_a_loop: bool) -> bytes:
    """Quantise x by 0.05, once or in the body of a loop of one turn."""
    zero = numpy_helper.from_array(np.array(0, np.int8), "zero")
    scale = numpy_helper.from_array(np.array(SCALE), "scale")
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.INT8, VALUES.shape)
    nodes, more = [node], []
    if in_a_loop:
        stays = helper.make_node("Identity", ["going"], ["goes"])
        body = helper.make_graph(
            [node, stays], "body",
            [helper.make_tensor_value_info("turn", TensorProto.INT64, []),
             helper.make_tensor_value_info("going", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), output],
        )  # fmt: skip
        nodes = [helper.make_node("Loop", ["count", ""], ["ys"], body=body)]
        more = [numpy_helper.from_array(np.array(1, np.int64), "count")]
        output = helper.make_tensor_value_info("ys", TensorProto.INT8, (1, *VALUES.shape))
    frame = helper.make_tensor_value_info("x", TensorProto.FLOAT16, VALUES.shape)
    whole = helper.make_graph(nodes, "g", [frame], [output], [zero, scale, *more])
    opsets = [helper.make_opsetid("", 20)]
    return serialized(helper.make_model(whole, opset_imports=opsets, ir_version=9))


@pytest.mark.parametrize("in_a_loop", [False, True])
@pytest.mark.parametrize("truncates", [False, True])
def test_it_rounds(monkeypatch: pytest.MonkeyPatch, in_a_loop: bool, truncates: bool) -> None:
    graph = _graph(in_a_loop=in_a_loop)
    if truncates:  # as if this were ONNX Runtime 1.23
        monkeypatch.setattr(half_rounding, "_truncates", lambda: True)
    wanted = np.rint(VALUES.astype(np.float32) / np.float32(SCALE)).clip(-128, 127)
    with Session.open(half_rounding.by_the_standard(graph), flavour=ORT, profiles={}) as session:
        (found,) = session.run(TENSORS).values()
    assert np.array_equal(found.reshape(VALUES.shape), wanted)


def test_a_runtime_that_rounds_gets_the_graph_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_rounding, "_truncates", lambda: False)
    graph = _graph(in_a_loop=False)
    assert half_rounding.by_the_standard(graph) is graph
    onnx.checker.check_model(onnx.load_from_string(graph))
