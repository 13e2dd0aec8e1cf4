"""The recipe: every output has its own bar, and a model that answers NaN proves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ExportError, ParityError
from edgevision.export import SemanticSegmentation, Tensors
from edgevision.export.recipe import export_stage
from tests.parts.nets import NAMES, SIZE, frames, small_net

SPEC = TensorSpec("x", DType.FLOAT32, (1, 8))
FEED = {"x": np.linspace(-1, 1, 8, dtype=np.float32)[np.newaxis]}


class Detector(nn.Module):
    """Boxes in pixels of a large image beside scores and labels: three ranges in one model."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * 6400, x.sigmoid(), (x * 40).round().to(torch.int64)


class Tampered(Tensors):
    """Gives a graph in which one output is wrong."""

    wrong = ""

    def to_onnx(self) -> ModelProto:
        model = super().to_onnx()
        node = next(n for n in model.graph.node if self.wrong in n.output)
        node.output[list(node.output).index(self.wrong)] = "right"
        kind = "int64" if self.wrong == "output2" else "float32"
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, kind), "off"))
        added = model.graph.node.add()
        added.op_type = "Add"
        added.input.extend(["right", "off"])
        added.output.append(self.wrong)
        return model


@pytest.mark.parametrize("wrong", ["output1", "output2"])
def test_a_wide_output_does_not_hide_a_wrong_narrow_one(wrong: str) -> None:
    adapter = Tampered(Detector(), inputs=[SPEC])
    adapter.wrong = wrong
    with pytest.raises(ParityError, match=f"fp32/{wrong}: DISAGREES"):
        export_stage(adapter, precision="fp32", samples=[FEED])


def test_each_output_is_held_to_its_own_range() -> None:
    stage = export_stage(Tensors(Detector(), inputs=[SPEC]), precision="fp16", samples=[FEED])
    bars = {report.name: report.tolerance.max_abs for report in stage.parity}
    assert bars["fp16/output0"] == pytest.approx(128)
    assert bars["fp16/output1"] < 0.02
    assert bars["fp16/output2"] == 0


class LogOfNegative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 100)


def test_a_model_that_answers_nan_is_refused() -> None:
    with pytest.raises(ExportError, match="gives NaN in output 'output0'"):
        export_stage(Tensors(LogOfNegative(), inputs=[SPEC]), precision="fp32", samples=[FEED])


class Picked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def test_answers_of_several_shapes_name_the_line_to_write() -> None:
    other = {"x": FEED["x"] + np.float32(0.5)}
    with pytest.raises(ExportError, match="carry a mask, or take a fixed number with topk"):
        export_stage(Tensors(Picked(), inputs=[SPEC]), precision="fp32", samples=[FEED, other])


class Added(nn.Module):
    """Adds up at one index twice, which ONNX Runtime does in float32 alone."""

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x).index_add(1, torch.tensor([0, 0]), x[:, :2])


def test_what_adds_up_at_indices_stays_float32_in_half() -> None:
    stage = export_stage(Tensors(Added(), inputs=[SPEC]), precision="fp16", samples=[FEED])
    assert "adds up at indices" in " ".join(stage.kept.values())


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")
def test_int8_of_a_net_gives_four_graphs_and_their_proof() -> None:
    adapter = SemanticSegmentation(small_net(), size=SIZE, classes=NAMES)
    fed = frames(6)
    stage = export_stage(adapter, precision="int8", samples=fed[:2], calibration=fed)
    steps = ["fp32", "fp16", "int8", "int8-host"]
    assert list(stage.graphs) == list(stage.tolerances) == steps
    assert [report.name for report in stage.parity] == [f"{step}/classes" for step in steps]
    assert stage.golden_inputs["frame"].shape == (2, 1, *SIZE, 3)
    np.testing.assert_array_equal(
        stage.golden_outputs["classes"][1], adapter.reference(fed[1])["classes"]
    )
    assert stage.calibration is not None
    assert stage.calibration.count == 6


def test_samples_are_needed_and_of_one_shape() -> None:
    adapter = Tensors(nn.Linear(8, 2), inputs=[TensorSpec("x", DType.FLOAT32, (-1, 8))])
    with pytest.raises(ExportError, match="no samples were given"):
        export_stage(adapter, precision="fp32", samples=[])
    two = {"x": np.zeros((2, 8), np.float32)}
    with pytest.raises(ExportError, match="differ in names or shapes"):
        export_stage(adapter, precision="fp32", samples=[FEED, two])
