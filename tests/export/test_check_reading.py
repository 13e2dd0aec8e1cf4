"""`check` runs what a Jetson's parser reads: a graph that is read otherwise is not fit.

`EDGEVISION_TEST_SHIPPED=1` builds every shipped net and reads each, a quarter of an hour; and
maskrcnn-digits with GridSample as it was once written.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.cli import main
from edgevision.export import Tensors
from edgevision.export.as_read import check_reading, read_golden
from edgevision.export.graph.qdq_rules import Finding
from edgevision.export.preflight import preflight

by_hand = pytest.mark.skipif(
    not os.environ.get("EDGEVISION_TEST_SHIPPED"),
    reason="every shipped net is built: EDGEVISION_TEST_SHIPPED=1",
)
HALF = onnx.TensorProto.FLOAT16
SHIPPED = {
    "maskrcnn-digits": "fp16", "captioner-digits": "fp16", "gan-digits": "fp16",
    "unet-camvid": "int8", "fcn-camvid": "fp16", "deeplabv3-camvid": "fp16",
}  # fmt: skip


def read(bundle: Bundle, *, linear: bool = False) -> list[Finding]:
    """Read a bundle's graphs; with GridSample's mode as opset 20 and torch call it."""
    found = []
    for stage in bundle.manifest.stages:
        model = onnx.load_from_string(bundle.read(stage.graph))
        for node in model.graph.node:
            if linear and node.op_type == "GridSample":
                node.attribute.append(helper.make_attribute("mode", "linear"))
        typed = onnx.shape_inference.infer_shapes(model)
        found += check_reading(typed, partial(read_golden, bundle, stage), stage.profiles)
    return found


class Warp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grid = torch.stack([x[:, 0] / 3, x[:, 1] / 3], -1)
        return nn.functional.grid_sample(x, grid, align_corners=False)


def test_a_grid_that_is_read_as_nearest_is_found(tmp_path: Path) -> None:
    net = Tensors(Warp(), inputs=[TensorSpec("x", DType.FLOAT32, (1, 2, 16, 16))])
    bundle = edgevision.build(net, tmp_path / "net.ev", precision="fp16", cache=None).bundle
    assert read(bundle) == []
    (finding,) = read(bundle, linear=True)
    assert "(GridSample)" in finding.node
    assert "takes mode 'linear' for nearest" in finding.message
    assert "DISAGREES" in finding.message
    assert "leave the mode out" in finding.remedy


def norm_file(folder: Path, scale: float) -> Path:
    """Write the norm of 400 numbers around `scale`, in float16."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Cast", ["s"], ["h"], to=HALF),
        helper.make_node("ReduceL2", ["h"], ["n"], "the_norm", keepdims=1),
        helper.make_node("Cast", ["n"], ["y"], to=1),
    ]
    stored = [onnx.numpy_helper.from_array(np.array(scale, np.float32), "scale")]
    ends = [value("x", 1, [1, 400])], [value("y", 1, [1, 1])]
    made = helper.make_graph(nodes, "g", *ends, stored)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "norm.onnx")
    return folder / "norm.onnx"


@pytest.mark.parametrize(("scale", "is_fit"), [(1.0, True), (40.0, False)])
def test_a_norm_whose_squares_overflow_is_not_fit(
    scale: float, is_fit: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = norm_file(tmp_path, scale)
    bundle = edgevision.build(file, tmp_path / "net.ev", cache=None).bundle
    for source in (bundle.root, file):
        assert main(["check", str(source), "--target", "jetson-orin-jp6"]) == int(not is_fit)
        told = capsys.readouterr().out
        assert ("its squares and their sum are float16; read so" in told) is not is_fit
        assert ("keep_fp32=NODE" in told) is not is_fit


def test_a_file_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=7),
        helper.make_node("Gather", ["x", "i"], ["g"]),
        helper.make_node("LogSoftmax", ["g"], ["y"]),
    ]
    made = helper.make_graph(nodes, "g", [value("x", 1, [4])], [value("y", 1, [4])])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    nodes[0].attribute[0].i = 7
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(9.0, "f4"), "nine"))
    model.graph.node.insert(0, helper.make_node("Add", ["x", "nine"], ["far"]))
    model.graph.node[1].input[0] = "far"
    onnx.save(model, tmp_path / "net.onnx")
    (checked,) = preflight(tmp_path / "net.onnx", "jetson-orin-jp6")
    (finding,) = [f for f in checked.findings if f.rule == "reading"]
    assert finding.severity == "warning"
    assert "its reading was not tried" in finding.message


@by_hand
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:INT8 was calibrated on")
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_nets_are_read_as_they_are_meant(name: str, tmp_path: Path) -> None:
    precision = SHIPPED[name]
    photos = Path(__file__).parents[2] / "examples" / "photos"
    frames = None if name in ("gan-digits", "captioner-digits", "maskrcnn-digits") else photos
    bundle = edgevision.build(
        name, tmp_path / "net.ev", precision=precision, cache=None, calibration=frames
    ).bundle
    assert read(bundle) == []
    if name == "maskrcnn-digits":
        assert {f.node.partition(" ")[2] for f in read(bundle, linear=True)} == {"(GridSample)"}
