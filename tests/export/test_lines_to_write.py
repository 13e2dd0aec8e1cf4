"""What torch cannot export is refused with a line to write, and that line does the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ExportError
from edgevision.export import Tensors
from edgevision.export.recipe import export_stage


class Attended(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x)


class AttendedByFourAxes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None]
        return functional.scaled_dot_product_attention(x, x, x)[:, 0]


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_max_pool1d(x, 5)


class PooledBySlices(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[-1], 5
        parts = [x[..., i * n // m : -(-(i + 1) * n // m)].amax(-1) for i in range(m)]
        return torch.stack(parts, -1)


class Unpooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        top, places = functional.max_pool2d(x, (1, 2), return_indices=True)
        return functional.max_unpool2d(top * 3, places, (1, 2))


class UnpooledByAMask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        top = functional.max_pool2d(x, (1, 2))
        above, placed = (t.repeat_interleave(2, -1) for t in (top, top * 3))
        return placed * (x == above)


class Pooled2d(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_max_pool2d(x[None], (3, 5))[0]


def adapter(module: nn.Module) -> Tensors:
    return Tensors(module, inputs=[TensorSpec("x", DType.FLOAT32, (2, 7, 8))])


@pytest.mark.parametrize(
    ("module", "line"),
    [(Attended, "four axes, q[:, None]"), (Pooled2d, "the amax of x[..., i * n // m")],
)
def test_a_refusal_names_the_line(module: type[nn.Module], line: str) -> None:
    with pytest.raises(ExportError) as caught:
        adapter(module()).to_onnx()
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("module", "written"),
    [(Attended, AttendedByFourAxes), (Pooled, PooledBySlices), (Unpooled, UnpooledByAMask)],
)
def test_the_line_does_the_same(module: type[nn.Module], written: type[nn.Module]) -> None:
    x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(written()(x), module()(x))
    export_stage(adapter(written()), precision="fp32", samples=[{"x": x.numpy()}])
