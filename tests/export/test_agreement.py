"""What misses a bar: broken graphs are refused, of the others the budget decides."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevision
from edgevision.bundle.forms import FP16, FP32, INT8, Form, forms_of
from edgevision.bundle.parity import Tolerance, compare
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ParityError
from edgevision.export import SemanticSegmentation, Tensors
from edgevision.export.agreement import hold, settle, widest
from edgevision.metrics.semantic import SemanticScore
from edgevision.runtime.verify import verify
from edgevision.tasks.proof import Proof
from edgevision.tasks.task import Headline, get_task
from tests.parts.nets import NAMES, SIZE, write_halves

GOLDEN = {"classes": np.repeat(np.arange(4, dtype=np.uint8), 250).reshape(1, 10, 100)}
BARS = {"classes": Tolerance(0.0, 0.05)}
MIOU = Headline("mIoU", 0.01)


def off(share: float) -> dict[str, np.ndarray]:
    """Return the golden answers with a share of other labels, evenly spread over all."""
    changed = GOLDEN["classes"].copy().ravel()
    where = np.linspace(0, changed.size - 1, round(share * changed.size)).astype(int)
    changed[where] = (changed[where] + 1) % 4
    return {"classes": changed.reshape(GOLDEN["classes"].shape)}


def held(form: Form, answers: dict[str, np.ndarray], *, is_strict: bool = False) -> float:
    """Return the share of labels that engines of the form may have otherwise."""
    _, bars = hold(Proof(), form, GOLDEN, answers, BARS, is_strict=is_strict, advice="Look.")
    return bars["classes"].max_mismatch_share


@pytest.mark.parametrize("form", [FP16, INT8])
def test_a_graph_that_misses_a_bar_is_let_through_with_bars_for_its_engines(form: Form) -> None:
    assert held(form, off(0.04)) == 0.05, "what passes keeps its bar"
    # What the graph needs, and the fixed bar on top: an engine adds up in another order.
    assert 0.12 <= held(form, off(0.12)) <= 0.25 + 0.05
    with pytest.raises(ParityError, match=r"the .* graph does not do what"):
        held(form, off(0.12), is_strict=True)


@pytest.mark.parametrize(
    ("form", "answers", "why"),
    [
        (FP32, off(0.06), "6.000% of 1000 elements"),
        (INT8, off(0.6), "60.0% of the elements are off, more than half"),
        (INT8, {"classes": np.zeros_like(GOLDEN["classes"])}, "more than half"),
        (FP16, {"classes": GOLDEN["classes"][:, ::-1]}, "more than half"),
    ],
)
def test_fp32_and_unrelated_answers_are_refused_always(
    form: Form, answers: dict[str, np.ndarray], why: str
) -> None:
    with pytest.raises(ParityError, match=why):
        held(form, answers)


def test_what_a_constant_answers_as_well_is_unrelated() -> None:
    """Where one class is nearly everything, most of any answer is right by chance."""
    labels = np.where(np.arange(1000) < 900, 0, 1)
    constant = compare(labels, np.zeros_like(labels), Tolerance(0, 0.05), name="x")
    assert constant.mismatch_share == pytest.approx(0.1)
    assert "a constant answer would miss 10.0%" in constant.unrelated_reason
    some = np.where(np.arange(1000) < 940, 0, 1)
    assert not compare(labels, some, Tolerance(0, 0.03), name="x").unrelated_reason
    # Of floats: within reach of one value.
    values = np.linspace(0, 1, 1001)
    mean = compare(values, np.full_like(values, 0.5), Tolerance(0.3, 0.01), name="x")
    assert mean.constant_share == pytest.approx(0.4, abs=0.01)
    assert mean.unrelated_reason
    assert not compare(
        values, values + 0.31 * (values > 0.9), Tolerance(0.3, 0.01), name="x"
    ).unrelated_reason


def test_values_that_are_no_numbers_are_refused() -> None:
    golden = {"y": np.linspace(-1, 1, 1000, dtype=np.float32)[np.newaxis]}
    answers = {"y": golden["y"].copy()}
    answers["y"][0, :20] = math.nan
    bars = {"y": Tolerance(0.1, 0.01)}
    with pytest.raises(ParityError, match="it gives values that are not finite"):
        hold(Proof(), INT8, golden, answers, bars, is_strict=False, advice="Look.")


def test_tensors_whose_noise_misses_its_bar_are_let_through() -> None:
    """Their bars of the whole follow from the share of elements, which grows with it."""
    random = np.random.default_rng(0)
    golden = {"y": random.standard_normal((2, 1000)).astype(np.float32)}
    answers = {"y": golden["y"] + 0.5 * random.standard_normal((2, 1000)).astype(np.float32)}
    bars = {"y": Tolerance(2.0, 0.01)}
    task = get_task("tensors")
    reports, wider = hold(task, INT8, golden, answers, bars, is_strict=False, advice="Look.")
    assert [r.name for r in reports if not r.passed] == ["int8/y (noise)"]
    assert wider["y"].max_mismatch_share > 0.025
    answers = {"y": golden["y"] + random.standard_normal((2, 1000)).astype(np.float32)}
    with pytest.raises(ParityError, match="noise"):
        hold(task, INT8, golden, answers, {"y": Tolerance(4.0, 0.01)}, is_strict=False, advice="")


def scores(fp32: float, int8: float) -> list[SemanticScore]:
    figures = (("torch", fp32), ("fp32", fp32), ("int8", int8), ("int8-host", int8))
    return [SemanticScore(form, value, value, (), 0.9) for form, value in figures]


def test_the_task_s_figure_decides_where_there_are_labels() -> None:
    reports, _ = hold(Proof(), INT8, GOLDEN, off(0.12), BARS, is_strict=False, advice="")
    forms = forms_of("int8")
    with pytest.warns(UserWarning, match=r"It is kept, for mIoU is 0\.7950, torch's 0\.8000"):
        settle(reports, forms, scores(0.8, 0.795), MIOU, shipped="int8")
    with pytest.raises(ParityError, match=r"mIoU is 0\.7800, torch's 0\.8000.*--budget LOSS"):
        settle(reports, forms, scores(0.8, 0.78), MIOU, shipped="int8")
    with pytest.raises(ParityError, match=r"a loss of 0\.002 is allowed"):
        settle(reports, forms, scores(0.8, 0.795), MIOU, max_loss=0.002, shipped="int8")
    with pytest.warns(UserWarning, match="No labelled frames say what that costs"):
        said = settle(reports, forms, scores(math.nan, math.nan), MIOU, shipped="int8")
    assert list(said) == ["int8"]
    # What only stands beside the graph that is shipped is told.
    with pytest.warns(UserWarning, match=r"mIoU is 0\.7800"):
        settle(reports, forms, scores(0.8, 0.78), MIOU, shipped="fp16")


def test_engines_of_gpus_and_cpus_are_held_by_the_wider_bar() -> None:
    bars = [{"y": Tolerance(0.1, 0.3)}, {"y": Tolerance(0.2, 0.1)}]
    assert widest(bars) == {"y": Tolerance(0.2, 0.3)}


class Near(nn.Module):
    """Three classes that are nearly as likely: rounding decides, and no layer is noisy."""

    def __init__(self, apart: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(1 + apart * torch.randn(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(x)
        return found


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")
def test_a_build_goes_on_with_a_warning_and_its_bundle_is_valid(tmp_path: Path) -> None:
    folder = write_halves(tmp_path / "frames")
    net = SemanticSegmentation(Near(0.005), size=SIZE, classes=NAMES)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        made = edgevision.build(net, tmp_path / "a.ev", precision="int8", calibration=folder)
    texts = [str(warning.message) for warning in heard]
    assert any(re.search("the int8 graph misses a bar.*--strict refuses it", t) for t in texts)
    bundle = made.bundle
    assert "misses a bar" in bundle.manifest.provenance["missed_bar_int8"]
    assert all(report.passed for report in verify(bundle))
    done = edgevision.finish(bundle, "local-cpu", engines=tmp_path / "engines")
    assert done.finished["local-cpu"].record.passed
    with pytest.raises(ParityError, match="the int8 graph does not do"):
        edgevision.build(net, tmp_path / "b.ev", precision="int8", calibration=folder, strict=True)


class Glyphs(nn.Module):
    """`Near` as a reader of text: likelihoods of classes, which are tensors and have no figure."""

    def __init__(self) -> None:
        super().__init__()
        self.near = Near(0.005)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (1000 * self.near(x)).movedim(1, -1).softmax(-1)
        return found


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")
def test_where_no_figure_tells_what_a_bar_costs_it_is_refused(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((4, 1, 3, 32, 48), np.float32)
    for number, frame in enumerate(frames):
        np.savez(tmp_path / f"{number}.npz", x=frame)
    net = Tensors(Glyphs(), inputs=[TensorSpec("x", DType.FLOAT32, (1, 3, 32, 48))])

    def build(name: str, **more: Any) -> Any:
        return edgevision.build(
            net, tmp_path / name, precision="int8", calibration=tmp_path, **more
        )

    with pytest.raises(ParityError, match="graph does not do what the model does"):
        build("a.ev")
    with pytest.warns(UserWarning, match="graph misses a bar"):
        made = build("b.ev", evaluate=tmp_path, metric=lambda outputs, _: outputs["output0"].mean())
    assert any(key.startswith("missed_bar_") for key in made.bundle.manifest.provenance)
