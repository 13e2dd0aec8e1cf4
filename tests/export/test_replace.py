"""What builders refuse is written with what they take, and gives the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgevision.export.graph.replace import replace_refused
from tests.parts.nets import run

FLOAT = onnx.TensorProto.FLOAT


def graph(
    op: str,
    shape: tuple[int, ...],
    stored: dict[str, Any],
    *,
    inputs: list[str] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    names = inputs or ["x", *stored]
    made = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [value("x", FLOAT, shape)],
        [value("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def held(model: onnx.ModelProto, x: np.ndarray, *, gone: str) -> None:
    """Hold the answers of a graph against those of what is written in its place."""
    inner = onnx_ir.from_proto(model)
    replace_refused(inner)
    written = onnx_ir.to_proto(inner)
    onnx.checker.check_model(written, full_check=True)
    assert gone not in {node.op_type for node in written.graph.node}
    wanted = run(model, {"x": x})["y"]
    np.testing.assert_allclose(run(written, {"x": x})["y"], wanted, rtol=1e-4, atol=1e-4)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
def test_a_celu_is_an_elu_of_another_scale(alpha: float) -> None:
    held(graph("Celu", (3, 40), {}, alpha=alpha), 4 * noise(3, 40), gone="Celu")


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [0, 2], [-1]])
def test_a_log_of_a_sum_keeps_its_axes_and_does_not_overflow(
    axes: list[int], keepdims: int
) -> None:
    x = 200 * noise(3, 4, 5)
    x[:, 1:] = np.where(x[:, 1:] < -100, -np.inf, x[:, 1:])
    x[2] = -np.inf
    model = graph("ReduceLogSumExp", (3, 4, 5), {"axes": np.array(axes)}, keepdims=keepdims)
    held(model, x, gone="ReduceLogSumExp")


@given(
    kernel=st.integers(1, 4), dilation=st.integers(2, 3), stride=st.integers(1, 3),
    before=st.integers(0, 1), after=st.integers(0, 1), size=st.integers(11, 14),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_a_dilated_pool_is_the_largest_of_shifted_pictures(
    kernel: int, dilation: int, stride: int, before: int, after: int, size: int
) -> None:
    # Padding must be smaller than the kernel.
    pads = [min(before, kernel - 1)] * 2 + [min(after, kernel - 1)] * 2
    model = graph(
        "MaxPool", (1, 2, size, size + 1), {}, kernel_shape=[kernel] * 2,
        dilations=[dilation] * 2, strides=[stride] * 2, pads=pads,
    )  # fmt: skip
    held(model, noise(1, 2, size, size + 1), gone="MaxPool")


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("where", ["half_pixel", "align_corners"])
def test_an_antialiased_resize_is_two_products(mode: str, by: str, where: str) -> None:
    size = {"scales": np.array([1, 1, 0.5, 0.25], np.float32), "sizes": np.array([1, 3, 6, 3])}
    names = ["x", "", "scales"] if by == "scales" else ["x", "", "", "sizes"]
    model = graph(
        "Resize", (1, 3, 12, 12), {by: size[by]}, inputs=names, antialias=1, mode=mode,
        coordinate_transformation_mode=where,
    )  # fmt: skip
    held(model, noise(1, 3, 12, 12), gone="Resize")


@given(
    kernel=st.integers(1, 3), dilation=st.integers(1, 2), stride=st.integers(1, 3),
    pad=st.integers(0, 1), height=st.integers(6, 9), width=st.integers(6, 9),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_blocks_are_added_up_by_a_deconvolution(
    kernel: int, dilation: int, stride: int, pad: int, height: int, width: int
) -> None:
    reach = dilation * (kernel - 1) + 1
    counts = [(n + 2 * pad - reach) // stride + 1 for n in (height, width)]
    shape = (2, 3 * kernel * kernel, counts[0] * counts[1])
    model = graph(
        "Col2Im", shape, {"picture": np.array([height, width]), "block": np.array([kernel] * 2)},
        strides=[stride] * 2, dilations=[dilation] * 2, pads=[pad] * 4,
    )  # fmt: skip
    held(model, noise(*shape), gone="Col2Im")


@pytest.mark.parametrize(
    ("parts", "onesided", "inverse"), [(1, 1, 0), (1, 0, 0), (2, 0, 0), (2, 0, 1)]
)
@pytest.mark.parametrize("length", [None, 5, 12])
@pytest.mark.parametrize("axis", [1, 2, -2])
def test_a_fourier_transform_is_a_product(
    parts: int, onesided: int, inverse: int, length: int | None, axis: int
) -> None:
    stored = {} if length is None else {"length": np.array(length)}
    names = ["x", "" if length is None else "length", "axis"]
    model = graph(
        "DFT", (2, 6, 8, parts), {**stored, "axis": np.array(axis)}, inputs=names,
        onesided=onesided, inverse=inverse,
    )  # fmt: skip
    held(model, noise(2, 6, 8, parts), gone="DFT")


def test_what_has_no_known_size_stays() -> None:
    model = graph("MaxPool", (1, 2, 9, 9), {}, kernel_shape=[3, 3], dilations=[2, 2])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    del model.graph.value_info[:]
    inner = onnx_ir.from_proto(model)
    replace_refused(inner)
    assert [node.op_type for node in inner.graph] == ["MaxPool"]
