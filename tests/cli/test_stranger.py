"""Unsigned bundles whose graphs ask for too much: `verify` ends them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.cli.stranger import verify_stranger
from edgevision.errors import EdgeVisionError

X, Y = (TensorSpec(name, DType.FLOAT32, (1, 4)) for name in "xy")


def bundle_of(path: Path, nodes: list[object], weights: dict[str, object]) -> Bundle:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    made = helper.make_graph(
        nodes, "g", values[:1], values[1:],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()
    stage = Stage(
        "main", "model.onnx", (X,), (Y,), {"y": Tolerance()}, {},
        (Artifact("host-cpu", ORT, "model.onnx", "1.32.0"),),
    )  # fmt: skip
    samples = np.ones((1, 1, 4), np.float32)
    with BundleWriter(path) as writer:
        writer.add("model.onnx", content)
        writer.add_golden("main", {"x": samples}, {"y": samples})
        return writer.publish(Manifest("tiny", "tensors", "fp32", {}, (stage,), (), {}))


def test_a_stranger_takes_no_more_than_its_share(tmp_path: Path) -> None:
    same = bundle_of(tmp_path / "same.ev", [helper.make_node("Identity", ["x"], ["y"])], {})
    assert all(report.passed for report in verify_stranger(same, device="cpu", engines=None))

    # 16 GB, by a node whose size is known when it runs.
    large = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["i", "one"], ["r"]),
        helper.make_node("Mul", ["r", "many"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["z"]),
        helper.make_node("ReduceMax", ["z"], ["w"], keepdims=0),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    sizes = {"one": np.array([1]), "many": np.array([4 << 30])}
    with pytest.raises(EdgeVisionError):
        verify_stranger(
            bundle_of(tmp_path / "large.ev", large, sizes), device="cpu", engines=None,
            memory_bytes=1 << 30,
        )  # fmt: skip

    # A loop whose condition stays true.
    keep = helper.make_node("Identity", ["c"], ["d"])
    grow = helper.make_node("Identity", ["v"], ["u"])
    value = [
        helper.make_tensor_value_info("n", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("d", TensorProto.BOOL, []),
        helper.make_tensor_value_info("u", TensorProto.FLOAT, [1, 4]),
    ]
    body = helper.make_graph([keep, grow], "body", value[:3], value[3:])
    endless = bundle_of(
        tmp_path / "endless.ev", [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)],
        {"true": np.array(True)},
    )  # fmt: skip
    with pytest.raises(EdgeVisionError, match=r"took longer than 1\.0 s and was ended.*--key"):
        verify_stranger(endless, device="cpu", engines=None, timeout_s=1.0)
