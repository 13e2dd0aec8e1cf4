"""Modules as people have them: taken with what they return, or refused by a sentence of ours."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ExportError
from edgevision.export import MultiTask, SemanticSegmentation, Tensors
from edgevision.export.adapters.multitask import SemanticHead
from edgevision.export.recipe import export_stage
from edgevision.export.source import resolve
from tests.parts.nets import run

FEED = {"x": np.linspace(-1, 1, 8, dtype=np.float32)[np.newaxis]}


def spec(name: str = "x") -> TensorSpec:
    return TensorSpec(name, DType.FLOAT32, (1, 8))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor | None = None


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: {"out": x + 1, "aux": x * 2}, ["out", "aux"]),
        (lambda x: Answer(x + 1), ["logits"]),
        (lambda x: Pair(x + 1, x * 2), ["left", "right"]),
        (lambda x: (x + 1, [x * 2, {"z": x * 3}]), ["output0", "output1", "z"]),
        (lambda x: (x + 1, None), ["output0"]),
        (lambda x: {0: x + 1, "a/b": x * 2, "x": x * 3}, ["0", "a_b", "x_2"]),
        (lambda x: x, ["output0"]),
        (lambda x: (x, x + 1, x), ["output0", "output1", "output2"]),
    ],
    ids=["dict", "dataclass", "named", "nested", "None", "odd keys", "its input", "one twice"],
)
def test_what_a_module_returns_is_taken(
    function: Callable[[Tensor], object], names: list[str]
) -> None:
    adapter = Tensors(Function(function), inputs=[spec()])
    want, found = adapter.reference(FEED), run(adapter.to_onnx(), FEED)
    assert list(want) == list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-6)


class ByName(nn.Module):
    def forward(self, *, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask


class Skipped(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
        assert mask is None
        assert kinds is not None
        return x - 10 * kinds


@pytest.mark.parametrize(("module", "second"), [(ByName(), "mask"), (Skipped(), "kinds")])
def test_arguments_go_by_name_where_the_module_has_them_so(module: nn.Module, second: str) -> None:
    adapter = Tensors(module, inputs=[spec(), spec(second)])
    feeds = {**FEED, second: FEED["x"] * 3}
    want = adapter.reference(feeds)["output0"]
    np.testing.assert_allclose(run(adapter.to_onnx(), feeds)["output0"], want, rtol=1e-6)


def test_arguments_that_the_module_does_not_take_are_told_with_its_own() -> None:
    with pytest.raises(ValueError, match=r"ByName\.forward takes \(\*, x: .*mask"):
        Tensors(ByName(), inputs=[spec(), spec("m")])


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        made: nn.Module = torch.jit.script(nn.Linear(8, 4))
    return made


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.jit.trace(nn.Linear(8, 4), torch.zeros(1, 8))
    return made


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x + 1, 3), "returns, at 1, int"),
        (lambda x: {"a": x, "b": {"c": "s"}}, r"returns, at b\.c, str"),
        (lambda x: None, "NoneType without a tensor"),
        (torch.fft.rfft, r"complex64\[1, 5\], which no target gives"),
        (lambda x: x[:, :0], r"float32\[1, 0\], which no target gives"),
        (functional.dropout, "runs twice on one sample"),
        (lambda x: x + torch.rand_like(x), "runs twice on one sample"),
        (scripted(), "is TorchScript"),
        (traced(), "is TorchScript"),
        (nn.Linear(8, 4).double(), r"weights of float64: .*module\.float\(\)"),
        (nn.Linear(9, 4), r"Linear fails on \(x: float32\[1, 8\]\)"),
        (lambda x: x * 2 if x.sum() > 0 else x, r"torch\.where"),
        (lambda x: x.bfloat16(), r"'output0' is bfloat16, .* tensor\.float\(\)"),
        (lambda x: sys.exit(3), "fails on .*: SystemExit: 3"),
    ],
)
def test_what_cannot_be_taken_says_why(function: Any, message: str) -> None:
    module = function if isinstance(function, nn.Module) else Function(function)
    adapter = Tensors(module.eval(), inputs=[spec()])
    with pytest.raises(ExportError, match=message):
        export_stage(adapter, precision="fp32", samples=[FEED])


def test_a_weight_among_the_outputs_is_a_constant() -> None:
    class WithScale(nn.Linear):
        def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(input), self.weight

    net = WithScale(8, 4)
    stage = export_stage(Tensors(net, inputs=[spec()]), precision="fp32", samples=[FEED])
    np.testing.assert_array_equal(stage.golden_outputs["output1"][0], net.weight.detach().numpy())


def test_a_captured_program_is_no_module_of_ones_own() -> None:
    captured = torch.export.export(nn.Linear(8, 4), (torch.zeros(1, 8),)).module()
    with pytest.raises(ExportError, match=r"fails .*: NotImplementedError: Calling eval"):
        Tensors(captured, inputs=[spec()]).reference(FEED)


@pytest.mark.parametrize("is_bright", [False, True])
def test_logits_that_are_nan_are_refused_though_their_classes_are_numbers(is_bright: bool) -> None:
    net = Function(lambda x: (x[:, :2] - 0.5).sqrt() if is_bright else (x[:, :2] + 1).sqrt())
    adapter = SemanticSegmentation(net, size=(8, 8), classes=["a", "b"], mean=(0, 0, 0))
    feeds = [{"frame": np.full((1, 8, 8, 3), 20, np.uint8)}]
    if not is_bright:
        export_stage(adapter, precision="fp32", samples=feeds)
        return
    with pytest.raises(ExportError, match="Function gives NaN in 128 of 128 values on a sample"):
        export_stage(adapter, precision="fp32", samples=feeds)


class Bright(nn.Module):
    """Fails where it is shown more than black, which it is tried on."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.max()) > 0.5:
            raise KeyError("bright")
        return torch.cat([x, x], 1)[:, :2]


def test_a_module_that_fails_later_is_told_by_its_name() -> None:
    net = SemanticSegmentation(Bright(), size=(8, 8), classes=["a", "b"], mean=(0, 0, 0))
    with pytest.raises(ExportError, match="Bright fails: KeyError: 'bright'"):
        net.reference({"frame": np.full((1, 8, 8, 3), 255, np.uint8)})
    with pytest.raises(ExportError, match="Sequential fails on a frame of 8x8"):
        MultiTask(
            nn.Sequential(nn.Linear(2, 2)), size=(8, 8), heads={"road": SemanticHead(["a", "b"])}
        )


@pytest.mark.parametrize(
    ("wrap", "left"),
    [
        (lambda y: (y, y), "output 1"),
        (lambda y: {"out": y, "depth": y}, "depth"),
        (lambda y: {"out": y, "aux": y}, None),
    ],
)
def test_a_head_that_is_not_taken_is_told(
    wrap: Callable[[Tensor], object], left: str | None
) -> None:
    net = Function(lambda x: wrap(x[:, :2]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        SemanticSegmentation(net, size=(8, 8), classes=["a", "b"])
    said = [str(warning.message) for warning in told]
    assert len(said) == (left is not None)
    assert all(str(left) in line for line in said)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no data')", "cannot be imported: RuntimeError: no data"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("def make(:", "cannot be imported: SyntaxError"),
        ("def make(): 1 / 0", "failed: ZeroDivisionError"),
    ],
)
def test_a_factory_that_raises_is_told(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_nets.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=message):
        resolve("odd_nets:make")
