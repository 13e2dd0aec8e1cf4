"""Capture keeps what a module computes: no epsilon is lost on the way, and no-ops are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ExportError
from edgevision.export.graph.capture import capture
from edgevision.export.precision.fp16 import to_fp16
from tests.parts.nets import run

X = (TensorSpec("x", DType.FLOAT32, (1, 4)),)


class Arithmetic(nn.Module):
    """One operator with a number."""

    def __init__(self, operator: str, number: float) -> None:
        super().__init__()
        self.operator, self.number = operator, number

    def forward(self, x: Tensor) -> Tensor:
        number, half = torch.tensor(self.number), x * 0.5
        y: Tensor = {
            "add": lambda: half + number,
            "radd": lambda: number + half,
            "sub": lambda: half - number,
            "mul": lambda: half * number,
            "div": lambda: half / number,
        }[self.operator]()
        return y


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("operator", ["add", "radd", "sub", "mul", "div"])
@pytest.mark.parametrize("nudge", [0.0, 1e-8, 1e-7])
def test_only_what_does_exactly_nothing_is_dropped(operator: str, nudge: float) -> None:
    idle = 1.0 if operator in ("mul", "div") else 0.0
    number = float(np.float32(idle + nudge)) if idle == 0 else 1.0 + 10 * nudge
    graph = capture(Arithmetic(operator, number), X, ("y",), {})
    wanted = np.float32(number) != idle
    assert len(operators(graph)) == 1 + wanted


class Direction(nn.Module):
    """Features by angle: 0/0 where there are none, but for the epsilon."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x / (x.norm(dim=1, keepdim=True) + 1e-8)
        return y


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_hidden_epsilon_holds_where_there_is_nothing(precision: str) -> None:
    graph = capture(Direction(), X, ("y",), {})
    seen = {"x": np.array([[3, 0, 4, 0]], np.float32)}
    if precision == "fp16":
        graph = to_fp16(graph, samples=[seen]).model
    np.testing.assert_allclose(run(graph, seen)["y"], [[0.6, 0, 0.8, 0]], atol=1e-3)
    for corner in (np.zeros((1, 4)), np.eye(1, 4), np.full((1, 4), 255)):
        x = corner.astype(np.float32)
        with torch.no_grad():
            wanted = Direction()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(run(graph, {"x": x})["y"], wanted, atol=1e-3)


class Warp(nn.Module):
    """Samples between pixels, as RoIAlign and optical flow do."""

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.stack([x[:, 0] / 3, x[:, 1] / 3], -1)
        return nn.functional.grid_sample(x, grid, mode="bilinear", align_corners=False)


def test_a_linear_grid_sample_names_no_mode() -> None:
    graph = capture(Warp(), (TensorSpec("x", DType.FLOAT32, (1, 2, 8, 8)),), ("y",), {})
    (node,) = [node for node in graph.graph.node if node.op_type == "GridSample"]
    assert "mode" not in {attribute.name for attribute in node.attribute}
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    wanted = Warp()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(graph, {"x": x})["y"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "number"),
    [("weight", np.nan), ("weight", -np.inf), ("running_var", np.nan), ("running_var", np.inf)],
)
def test_numbers_that_are_none_are_refused_by_name(name: str, number: float) -> None:
    net = nn.Sequential(nn.BatchNorm1d(4))
    with torch.no_grad():
        getattr(net[0], name)[2] = number
    with pytest.raises(ExportError, match=f"'0.{name}' holds 1 of 4 values"):
        capture(net, X, ("y",), {})


def test_minus_infinity_in_a_mask_is_meant() -> None:
    class Masked(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([0, 0, float("-inf"), 0]))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.mask).softmax(1)

    assert capture(Masked(), X, ("y",), {}).graph.node
