"""Small ONNX graphs of known cost, so that what is measured is the runtime around them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def identity() -> bytes:
    """Return a graph that passes `x: float32[1, 64]` through: about 2 us."""
    return _graph([helper.make_node("Identity", ["x"], ["y"])], (1, 64), (1, 64), {})


def convolution(channels: int, height: int, width: int) -> bytes:
    """Return a 3x3 convolution of `x: float32[1, 3, height, width]`."""
    weights = np.random.default_rng(0).standard_normal((channels, 3, 3, 3)).astype(np.float32)
    return _graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        (1, 3, height, width),
        (1, channels, height, width),
        {"w": weights},
    )


def busy_frame(height: int, width: int, repeats: int) -> bytes:
    """Return a graph from `frame: uint8[1, H, W, 3]` to `mask: uint8[1, H, W]`, slow at will."""
    weights = np.full((8, 8, 3, 3), 0.01, np.float32)
    first = np.full((8, 3, 3, 3), 0.01, np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "first"], ["c0"], pads=[1, 1, 1, 1]),
    ]
    nodes += [
        helper.make_node("Conv", [f"c{index}", "w"], [f"c{index + 1}"], pads=[1, 1, 1, 1])
        for index in range(repeats)
    ]
    nodes += [
        helper.make_node("ArgMax", [f"c{repeats}"], ["i"], axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.UINT8),
    ]
    return _graph(
        nodes,
        (1, height, width, 3),
        (1, height, width),
        {"w": weights, "first": first},
        kind=TensorProto.UINT8,
    )


def _graph(
    nodes: list[onnx.NodeProto],
    shape_in: tuple[int, ...],
    shape_out: tuple[int, ...],
    weights: dict[str, np.ndarray],
    *,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info("x", kind, shape_in)],
        [helper.make_tensor_value_info("y", kind, shape_out)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
