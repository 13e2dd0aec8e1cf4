"""Fake quantisation in a module: where the INT8 pass has it, trainable, taken as INT8 as it is."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import edgevision
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ExportError
from edgevision.export import (
    ImageGenerator,
    Normal,
    SemanticSegmentation,
    Tensors,
    fake_quantize,
)
from edgevision.export.fake_quantization import FakeQuantized
from edgevision.export.graph.capture import capture
from edgevision.export.precision.brought import store_int8
from edgevision.export.precision.int8 import to_int8
from edgevision.export.preflight import preflight
from edgevision.export.recipe import export_stage
from edgevision.models.mobilenet_v2 import InvertedResidual

X = TensorSpec("x", DType.FLOAT32, (1, 3, 8, 8))


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    """Every kind of layer: with batch norms, a residual, an upsampling, a linear head."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        InvertedResidual(8, 8, 1, 2),
        nn.ConvTranspose2d(8, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, 5),
    )  # fmt: skip
    for _ in range(3):
        net(torch.randn(4, 3, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def samples() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(1, 3, 8, 8) for _ in range(4)]


@pytest.fixture(scope="module")
def student(net: nn.Module, samples: list[Tensor]) -> nn.Module:
    return fake_quantize(net, samples, percentile=100)


def stored(model: onnx.ModelProto, dtype: type) -> list[np.ndarray]:
    """Return the stored arrays of a type, the smallest first, without zero points."""
    arrays = [numpy_helper.to_array(i) for i in model.graph.initializer]
    found = [a for a in arrays if a.dtype == dtype and (a.any() or dtype is np.float32)]
    return sorted(found, key=lambda a: (a.size, float(a.sum())))


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")
def test_it_is_the_graph_that_the_int8_pass_makes(
    net: nn.Module, student: nn.Module, samples: list[Tensor]
) -> None:
    feeds = [{"x": x.numpy()} for x in samples]
    float_graph = capture(net, [X], ["y"], {})
    wanted = to_int8(
        float_graph, feeds, method="minmax", min_snr_db=float("-inf"), recover=()
    ).model
    found = capture(student, [X], ["y"], {})
    store_int8(found)
    assert Counter(n.op_type for n in found.graph.node) == Counter(
        n.op_type for n in wanted.graph.node
    )
    made_by = {name: n.op_type for n in found.graph.node for name in n.output}
    (add,) = (n for n in found.graph.node if n.op_type == "Add")
    assert sorted(made_by[name] for name in add.input) == ["Conv", "DequantizeLinear"]
    for ours, theirs in zip(stored(found, np.float32), stored(wanted, np.float32), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-6)
    for ours, theirs in zip(stored(found, np.int8), stored(wanted, np.int8), strict=True):
        assert np.abs(ours.astype(int) - theirs).max(initial=0) <= 1


def test_it_answers_as_the_net_but_for_rounding(
    net: nn.Module, student: nn.Module, samples: list[Tensor]
) -> None:
    with torch.no_grad():
        wanted, found = net(samples[0]), student(samples[0])
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.1
    assert student(torch.cat(samples)).shape == (4, 5)


def test_training_moves_weights_and_neither_steps_nor_the_net(
    net: nn.Module, samples: list[Tensor]
) -> None:
    before, student = copy.deepcopy(net.state_dict()), fake_quantize(net, samples, weight_steps=3)
    steps = {n: b.clone() for n, b in student.named_buffers()}
    batch, losses = torch.cat(samples), []
    optimizer = torch.optim.Adam(student.parameters(), 1e-4)
    for _ in range(8):
        loss = (student(batch) - net(batch).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(b, steps[n]) for n, b in student.named_buffers())
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


def test_what_was_trained_at_one_size_goes_on_at_another(net: nn.Sequential) -> None:
    small, large = (fake_quantize(net[:4], [torch.rand(1, 3, s, s)]) for s in (8, 12))
    large.load_state_dict(small.state_dict())
    assert large(torch.rand(2, 3, 12, 12)).shape == (2, 8, 12, 12)


def test_a_net_may_take_several_tensors() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 5), nn.Linear(4, 5)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.left(left) + self.right(right)

    student = fake_quantize(Both(), [(torch.rand(1, 3), torch.rand(1, 4))])
    assert student(torch.rand(7, 3), torch.rand(7, 4)).shape == (7, 5)


def test_what_cannot_be_is_told(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="got 0 samples"):
        fake_quantize(net, [])
    with pytest.raises(ValueError, match="percentile 101"):
        fake_quantize(net, [torch.zeros(1, 3, 8, 8)], percentile=101)
    with pytest.raises(ExportError, match="ReLU: nothing to quantise"):
        fake_quantize(nn.ReLU(), [torch.zeros(1, 3)])
    with pytest.raises(ExportError, match=r"Sequential fails on a sample of \[\[1, 4\]\]"):
        fake_quantize(net, [torch.zeros(1, 4)])


def test_a_build_takes_it_as_int8_with_its_own_steps(net: nn.Sequential, tmp_path: Path) -> None:
    torch.manual_seed(2)
    student = fake_quantize(
        nn.Sequential(*net[:4], nn.Conv2d(8, 3, 1)), [torch.randn(1, 3, 16, 24) for _ in range(2)]
    )
    adapter = SemanticSegmentation(student, size=(16, 24), classes=["a", "b", "c"])
    made = edgevision.build(adapter, tmp_path / "q.ev", precision="int8", cache=None)
    provenance = made.bundle.manifest.provenance
    assert provenance["calibration_method"] == "none, the model brings its scales"
    (checked,) = preflight(made.bundle, "jetson-orin-jp6")
    assert checked.passed, checked.findings
    layers = json.loads(made.bundle.read("reports/layers.json"))
    assert set(layers["int8"].values()) == {"scales as the model brings them"}
    assert len(layers["int8"]) == sum(isinstance(m, FakeQuantized) for m in student.modules()) // 2
    graph = onnx.load_from_string(made.bundle.read(made.bundle.manifest.stages[0].graph))
    values = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    used = [values[n.input[1]] for n in graph.graph.node if n.op_type == "DequantizeLinear"]
    assert {a.dtype for a in used} == {np.dtype(np.float16)}, "the rest is FP16"
    brought = [m.scale.numpy() for m in student.modules() if isinstance(m, FakeQuantized)]
    assert sorted(a.astype(np.float32).tolist().__repr__() for a in used) == sorted(
        a.tolist().__repr__() for a in brought
    )


def test_a_generator_keeps_its_open_batch(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Linear(6, 16), nn.Unflatten(1, (4, 2, 2)), nn.ConvTranspose2d(4, 1, 2, 2)
    )
    adapter = ImageGenerator(
        fake_quantize(net, [torch.randn(8, 6)]), inputs=[Normal("latent", (6,))]
    )
    made = edgevision.build(adapter, tmp_path / "g.ev", precision="int8", cache=None)
    assert made.bundle.manifest.stages[0].profiles["latent"].maximum == (64, 6)


class Layer(nn.Module):
    """One convolution with fake quantisation as a user may write it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.conv = nn.Conv2d(3, 3, 3)
        self.register_buffer("steps", torch.full((3,), 0.01))
        self.register_buffer("none", torch.zeros(3, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        zero = 3 if self.fault == "asymmetric" else 0
        ends = {"uint8": (0, 255), "int4": (-8, 7)}.get(self.fault, (-128, 127))
        if self.fault == "computed":
            scale = x.abs().amax((0, 1, 2, 3)) / 127
            x = torch.fake_quantize_per_tensor_affine(x, scale, self.none[0], *ends)
        elif self.fault == "per channel":
            x = torch.fake_quantize_per_channel_affine(x, self.steps, self.none, 1, *ends)
        else:
            x = torch.fake_quantize_per_tensor_affine(x, 0.03, zero, *ends)
        if self.fault == "no weights":
            return self.conv(x)
        axis = 1 if self.fault == "axis" else 0
        weight = torch.fake_quantize_per_channel_affine(
            self.conv.weight, self.steps, self.none, axis, -128, 127
        )
        return nn.functional.conv2d(x, weight, self.conv.bias)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("asymmetric", "zero point is not 0 (quantise symmetrically: a scale of the largest"),
        ("uint8", "quantises to UINT8 (quantise to int8, in torch by quant_min=-128"),
        ("int4", "Fake-quantise with quant_min=-128, quant_max=127"),
        ("computed", "its scale is computed (make the scale a constant, in torch a buffer)"),
        ("per channel", "an activation has a scale per channel (use one scale for it)"),
        ("axis", "scales run along axis 1 of Conv's weights (scale along axis 0"),
        ("no weights", "brings Q/DQ, but around no layer"),
    ],
)
def test_fake_quantisation_that_no_target_takes_is_refused(
    fault: str, message: str, tmp_path: Path
) -> None:
    adapter = Tensors(Layer(fault), inputs=[X])
    with pytest.raises(ExportError) as caught:
        edgevision.build(adapter, tmp_path / "q.ev", precision="int8", cache=None)
    assert message in str(caught.value)


def test_fake_quantisation_of_a_user_is_taken(tmp_path: Path) -> None:
    made = edgevision.build(
        Tensors(Layer(""), inputs=[X]), tmp_path / "q.ev", precision="int8", cache=None
    )
    assert all(report.passed for report in made.parity)
    assert {r.name.split("/")[0] for r in made.parity} >= {"int8", "int8-host"}


def test_a_budget_chooses_no_layers_of_a_model_that_brings_them() -> None:
    feeds = [{"x": np.zeros((1, 3, 8, 8), np.float32)}]
    with pytest.raises(ValueError, match="budget: the model brings its own Q/DQ"):
        export_stage(
            Tensors(Layer(""), inputs=[X]), precision="int8", samples=feeds, calibration=feeds,
            choose_wide=lambda _: {},
        )  # fmt: skip
