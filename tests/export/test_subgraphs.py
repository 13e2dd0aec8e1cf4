"""Loops rewritten: a body is fed as its Loop feeds it, and FP16 and INT8 reach inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.errors import ExportError
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import typed
from edgevision.export.graph.subgraphs import (
    MOST_FEEDS,
    body_feeds,
    body_model,
    captured,
    loop_body,
    loops,
    rename_captured,
)
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.int8 import to_int8
from edgevision.runtime.session import Session

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WIDTH = 16


def recurrence(
    *, most: int = 6, stored_inside: bool = False, limit: float = 1e9
) -> onnx.ModelProto:
    """Return h <- tanh(h W + u), with u = x V computed outside, until the sum of h passes `limit`.

    W is read outside as well, so that the two uses can be told apart.
    """
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 3 for _ in range(2))
    value, node = helper.make_tensor_value_info, helper.make_node
    inner = [numpy_helper.from_array(w, "W")] if stored_inside else []
    body = helper.make_graph(
        [
            node("MatMul", ["h", "W"], ["p"], "step_product"),
            node("Add", ["p", "u"], ["q"], "step_sum"),
            node("Tanh", ["q"], ["h_next"], "step_tanh"),
            node("ReduceSum", ["h_next"], ["total"], "step_total", keepdims=0),
            node("Less", ["total", "limit"], ["going"], "step_less"),
        ],
        "body",
        [value("i", INT64, []), value("going_in", BOOL, []), value("h", FLOAT, [1, WIDTH])],
        [value("going", BOOL, []), value("h_next", FLOAT, [1, WIDTH])],
        inner,
    )
    outside = "W_outside" if stored_inside else "W"
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "V"], ["u"], "first"),
            node("MatMul", ["u", outside], ["h0"], "second"),
            node("Loop", ["most", "true", "h0"], ["h_last"], "again", body=body),
            node("Relu", ["h_last"], ["y"], "last"),
        ],
        "g",
        [value("x", FLOAT, [1, WIDTH])],
        [value("y", FLOAT, [1, WIDTH])],
        [
            numpy_helper.from_array(w, outside),
            numpy_helper.from_array(v, "V"),
            numpy_helper.from_array(np.array(most, np.int64), "most"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array(limit, np.float32), "limit"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((1, WIDTH)).astype(np.float32)} for _ in range(count)]


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> Any:
    with Session.open(serialized(model), flavour=ORT) as session:
        return session.run(feed)["y"]


@pytest.mark.parametrize("limit", [1e9, 2.0])
def test_a_body_is_fed_as_its_loop_feeds_it(limit: float) -> None:
    model = typed(recurrence(limit=limit))
    (loop,) = loops(model.graph)
    body = body_model(model, loop)
    assert sorted(v.name for v in body.graph.input) == ["going_in", "h", "i", "u"]
    w, v = (numpy_helper.to_array(i) for i in model.graph.initializer if i.name in "WV")
    for sample in feeds(5):
        u = sample["x"] @ v
        h, wanted = u @ w, []
        for step in range(6):
            wanted.append((step, h))
            h = np.tanh(h @ w + u)
            if h.sum() >= limit:
                break
        found = list(body_feeds(model, loop, body, [sample], {}))
        assert [int(f["i"]) for f in found] == [step for step, _ in wanted]
        for one, (_, state) in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one["h"], state, atol=1e-5)
            np.testing.assert_allclose(one["u"], u, atol=1e-6)


def test_no_more_feeds_are_held_than_fit() -> None:
    model = typed(recurrence(most=100))
    (loop,) = loops(model.graph)
    body = body_model(model, loop)
    found = list(body_feeds(model, loop, body, feeds(64), {}))
    assert MOST_FEEDS / 2 < len(found) <= MOST_FEEDS
    assert {int(f["i"]) for f in found} >= {0}
    assert max(int(f["i"]) for f in found) > 80


@pytest.mark.parametrize("stored_inside", [False, True])
def test_fp16_reaches_inside_and_carries_float32(stored_inside: bool) -> None:
    model = recurrence(stored_inside=stored_inside)
    half = to_fp16(model, samples=feeds(4)).model
    body = loop_body(loops(half.graph)[0])
    carried = {v.name: v.type.tensor_type.elem_type for v in (*body.input, *body.output)}
    assert carried["h"] == carried["h_next"] == FLOAT
    inside = {i.data_type for i in body.initializer if len(i.dims) == 2}
    assert inside == {TensorProto.FLOAT16}
    for feed in feeds(8):
        np.testing.assert_allclose(run(half, feed), run(model, feed), atol=5e-3)
        assert (run(half, feed) != run(model, feed)).any()


def test_what_a_loop_carries_may_have_no_known_shape() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float x) => (float y) <int64 k = {3}> '
        "{ y = Loop (k, , x) <body = b (int64 i, bool a, float v) => (bool o, float w) "
        "{ o = Identity (a) w = Add (v, v) }> }"
    )
    (loop,) = loops(model.graph)
    loop.name = "doubling"
    loop_body(loop).input[2].type.tensor_type.ClearField("shape")
    feed = {"x": np.array(1.5, np.float32)}
    assert run(to_fp16(model, samples=[feed]).model, feed) == 12


def test_nodes_inside_stay_wide_if_asked() -> None:
    half = to_fp16(recurrence(), samples=feeds(2), keep_fp32=["step_product", "Tanh"])
    assert {"step_product", "step_tanh", "again"} <= half.kept_fp32.keys()
    with pytest.raises(ExportError, match="no node or op type is called step_nothing"):
        to_fp16(recurrence(), samples=feeds(2), keep_fp32=["step_nothing"])


@pytest.mark.parametrize("stored_inside", [False, True])
def test_int8_reaches_inside(stored_inside: bool) -> None:
    model = recurrence(stored_inside=stored_inside)
    done = to_int8(model, feeds(32))
    assert done.int8.keys() == {"first", "second", "step_product"}
    body = loop_body(loops(done.model.graph)[0])
    assert [n.op_type for n in body.node].count("QuantizeLinear") == 1
    for feed in feeds(8):
        assert np.abs(run(done.model, feed) - run(model, feed)).mean() < 0.04
    half = to_fp16(done.model, samples=feeds(4)).model
    for feed in feeds(8):
        assert np.abs(run(half, feed) - run(model, feed)).mean() < 0.04


def test_layers_inside_stay_float_if_asked() -> None:
    done = to_int8(recurrence(), feeds(16), keep_float=["step_product"])
    assert done.int8.keys() == {"first", "second"}
    alone = to_int8(recurrence(), feeds(16), keep_float=["first", "second"])
    assert alone.int8.keys() == {"step_product"}
    with pytest.raises(ExportError, match="nothing to quantise"):
        to_int8(recurrence(), feeds(16), keep_float=["MatMul"])


def test_what_a_body_reads_and_gives_back_from_outside_gets_its_new_name() -> None:
    (loop,) = loops(recurrence().graph)
    loop_body(loop).output.append(helper.make_tensor_value_info("u", FLOAT, [1, WIDTH]))
    rename_captured(loop, {"u": "u_half", "W": "W_half"})
    assert captured(loop) == {"u_half", "W_half", "limit"}
    assert [value.name for value in loop_body(loop).output] == ["going", "h_next", "u_half"]
