"""Small bundles and graphs: which channel is the strongest, or twice what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec

HEIGHT, WIDTH = 6, 10
FRAME = TensorSpec("frame", DType.UINT8, (1, HEIGHT, WIDTH, 3))
CLASSES = TensorSpec("classes", DType.UINT8, (1, HEIGHT, WIDTH))
SETTINGS: dict[str, Any] = {
    "classes": [
        {"name": "red", "color": "#ff0000"},
        {"name": "green", "color": "#00ff00"},
        {"name": "blue", "color": "#0000ff"},
    ],
    "channel_order": "rgb",
}


def strongest_channel(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """Return a graph whose class map is the index of each pixel's largest channel."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ArgMax", ["f"], ["i"], axis=3, keepdims=0),
            helper.make_node("Cast", ["i"], ["classes"], to=TensorProto.UINT8),
        ],
        "strongest_channel",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, (1, height, width, 3))],
        [helper.make_tensor_value_info("classes", TensorProto.UINT8, (1, height, width))],
    )
    return serialized(graph)


def doubled(batch: int | str = "n") -> bytes:
    """Return a graph that doubles `x: float32[batch, 3]` into `y`."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "doubled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    return serialized(graph)


def serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def semantic_bundle(
    path: Path,
    *,
    artifacts: tuple[Artifact, ...] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    precision: str = "fp32",
    channel_order: str = "rgb",
) -> Bundle:
    """Publish a bundle of `strongest_channel` with three golden frames."""
    graph = strongest_channel(*size)
    frame, classes = FRAME.with_shape((1, *size, 3)), CLASSES.with_shape((1, *size))
    frames = np.random.default_rng(1).integers(0, 256, (3, *frame.shape), np.uint8)
    on_cpu = Artifact("host-cpu", ORT, "stages/main/host-cpu.onnx", version="1")
    with BundleWriter(path) as writer:
        writer.add("stages/main/model.onnx", graph)
        writer.add("stages/main/host-cpu.onnx", graph)
        golden = {"classes": frames.argmax(-1).astype(np.uint8)}
        writer.add_golden("main", {"frame": frames}, golden)
        stage = Stage(
            "main",
            "stages/main/model.onnx",
            (frame,),
            (classes,),
            {"classes": Tolerance()},
            artifacts=(on_cpu,) if artifacts is None else artifacts,
        )
        settings = {**SETTINGS, "channel_order": channel_order}
        return writer.publish(Manifest("tiny", "semantic", precision, settings, (stage,), ()))
