"""The most INT8 inside a budget: found, the same every time, and resumed where it was killed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import edgevision
from edgevision.bundle.flavours import ORT
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.cli import main
from edgevision.errors import ExportError
from edgevision.export import SemanticSegmentation, Tensors
from edgevision.export.adapters.adapter import Run
from edgevision.export.budget import BudgetSearch, MeasuredLoss, search_for
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import typed
from edgevision.export.precision.int8 import to_int8
from edgevision.export.precision.macs import multiply_accumulates
from edgevision.export.precision.quantizer import prepare
from edgevision.export.precision.search import Candidate, search
from edgevision.export.samples import calibration_samples
from edgevision.progress import silent
from edgevision.runtime.session import Session
from tests.parts.nets import NAMES, SIZE, write_halves

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


class Additive:
    """Losses that add up, layer by layer; counts what was measured."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs
        self.measured: list[tuple[frozenset[str], bool]] = []

    def __call__(self, int8: Collection[str], *, on_all: bool) -> float:
        self.measured.append((frozenset(int8), on_all))
        return sum(self.costs[name] for name in int8)


def layers(*macs: int) -> dict[str, Candidate]:
    return {f"n{i}": Candidate(count, 30.0) for i, count in enumerate(macs)}


def test_what_fits_the_budget_costs_one_measurement() -> None:
    loss = Additive({"n0": 0.001, "n1": 0.001})
    found = search(layers(10, 10), loss, 0.002)
    assert found.holds
    assert (found.best.int8, found.best.share, found.harm) == (("n0", "n1"), 1.0, {})
    assert loss.measured == [(frozenset({"n0", "n1"}), True)]


def test_a_planted_layer_goes_back_and_no_other() -> None:
    costs = {f"n{i}": 0.0001 for i in range(40)} | {"n17": 0.5}
    found = search(layers(*range(100, 140)), Additive(costs), 0.01)
    assert set(costs) - set(found.best.int8) == {"n17"}
    assert found.harm["n17"] == pytest.approx(0.5)
    assert len(found.steps) <= 3


def test_the_order_is_of_harm_for_each_multiply_accumulate() -> None:
    """Of two layers that do the same harm the small one goes back; the large one stays INT8."""
    found = search(layers(1000, 10, 500), Additive({"n0": 0.02, "n1": 0.02, "n2": 0}), 0.03)
    assert found.best.int8 == ("n0", "n2")


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 1000)), min_size=1, max_size=12),
    st.integers(0, 3000),
)
def test_what_is_found_is_inside_and_takes_no_layer_more(
    planted: list[tuple[int, int]], budget: int
) -> None:
    candidates = layers(*(macs for macs, _ in planted))
    costs = dict(zip(candidates, (float(cost) for _, cost in planted), strict=True))
    found = search(candidates, Additive(costs), budget)
    assert found == search(candidates, Additive(costs), budget)
    lost = sum(costs[name] for name in found.best.int8)
    assert found.best.loss == lost
    assert found.holds == (lost <= budget)
    if found.holds:
        assert all(lost + costs[n] > budget for n in costs if n not in found.best.int8)


def test_what_cannot_be_met_gives_the_nearest() -> None:
    found = search(layers(10, 10, 10), Additive({"n0": 0.3, "n1": 0.2, "n2": 0.4}), 0.1)
    assert not found.holds
    assert (found.best.int8, found.best.loss, found.is_complete) == (("n1",), 0.2, True)


def test_a_search_without_time_ends_with_the_best_that_it_has() -> None:
    costs = {f"n{i}": 0.01 for i in range(8)}
    for limit in range(1, 40):
        loss = Additive(costs)
        found = search(
            layers(*[10] * 8),
            loss,
            0.03,
            is_over=lambda: len(loss.measured) >= limit,  # noqa: B023
        )
        assert len(loss.measured) <= limit
        assert found.holds == (found.best.loss <= 0.03)
        if found.is_complete:
            break
    assert len(found.best.int8) == 3


class Planted(nn.Module):
    """Its second layer reads one channel that explodes, and needs the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 3, 1, bias=False)
        self.gain = nn.Parameter(torch.tensor([3000.0] + [1.0] * 7).reshape(1, 8, 1, 1))
        with torch.no_grad():
            self.second.weight[:, 0] /= 3e6

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x)) * self.gain
        x = torch.relu(self.second(x))
        found: Tensor = self.head(x - x.mean((2, 3), keepdim=True))
        return found


@pytest.fixture(scope="module")
def net() -> SemanticSegmentation:
    return SemanticSegmentation(Planted().eval(), size=SIZE, classes=NAMES)


@pytest.fixture(scope="module")
def graph(net: SemanticSegmentation) -> onnx.ModelProto:
    return net.to_onnx()


@pytest.fixture(scope="module")
def val(net: SemanticSegmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose labels are what the float net says, so that it loses nothing."""
    folder = tmp_path_factory.mktemp("val")
    write_halves(folder / "images")
    (folder / "labels").mkdir()
    for path in sorted((folder / "images").glob("*.png")):
        picture = Image.open(path).convert("RGB").resize(SIZE[::-1])
        picture.save(path)
        mask = net.reference({"frame": np.asarray(picture)[np.newaxis]})["classes"][0]
        Image.fromarray(mask).save(folder / "labels" / path.name)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def searched(
    net: SemanticSegmentation,
    graph: onnx.ModelProto,
    budget: float | str,
    folder: Path | None,
    calibration: Path,
    minutes: float = 10,
) -> tuple[bytes, BudgetSearch]:
    feeds = calibration_samples(net, calibration)
    search_of = BudgetSearch(
        net, budget, minutes=minutes, evaluate=folder, calibration=feeds,
        progress=silent,
    )  # fmt: skip
    made = to_int8(graph, feeds, choose_wide=search_of)
    return serialized(made.model), search_of


def test_the_planted_layer_is_found_by_the_metric_and_again(
    net: SemanticSegmentation, graph: onnx.ModelProto, val: Path, cache: Path
) -> None:
    first, done = searched(net, graph, 0.02, val, val / "images")
    assert done.outcome is not None
    report = done.outcome.as_json()
    assert (report["figure"], report["is_complete"]) == ("mIoU", True)
    (wide,) = report["steps"][report["chosen"]]["wide"]  # type: ignore[index]
    (second,) = [n.name for n in graph.graph.node if n.op_type == "Conv"][1:2]
    assert wide == second
    assert max(done.outcome.found.harm, key=done.outcome.found.harm.__getitem__) == second
    for path in (cache / "search").iterdir():
        path.unlink()
    again, _ = searched(net, graph, 0.02, val, val / "images")
    assert again == first, "two searches of one net give one graph"


def test_without_labels_it_is_agreement(
    net: SemanticSegmentation, graph: onnx.ModelProto, val: Path
) -> None:
    for folder in (None, val / "images"):
        _, done = searched(net, graph, 0.05, folder, val / "images")
        assert done.outcome is not None
        assert done.outcome.title == "share of answers that are not FP32's"
        assert 0 < done.outcome.found.best.share < 1
    with pytest.raises(ValueError, match="no labelled frames say what it is"):
        searched(net, graph, "task", None, val / "images")


def test_budget_0_and_one_that_cannot_be_met_are_told(
    net: SemanticSegmentation, graph: onnx.ModelProto, val: Path
) -> None:
    message = r"The nearest, mIoU: 0\.\d+ is lost with \d+% of .* too much\. Give --budget 0\.\d+"
    with pytest.raises(ExportError, match=message):
        searched(net, graph, 0, val, val / "images")
    with pytest.raises(ExportError, match=r"was found in 0 minutes.*goes on where it stopped"):
        searched(net, graph, 0.02, val, val / "images", minutes=0)
    with pytest.raises(SystemExit, match="2"):
        main(["build", "gan-digits", "--budget", "much"])
    for bad in (-1, float("nan"), True, "much"):
        with pytest.raises(ValueError, match="budget: got"):
            edgevision.build(net, "x.ev", precision="int8", budget=bad)
    with pytest.raises(ValueError, match="budget: what INT8 may lose, and precision is fp16"):
        edgevision.build(net, "x.ev", precision="fp16", budget=0.01)


class Killed:
    """A figure whose search is killed at one of its measurements."""

    title, count = "killed", 4

    def __init__(self, at: int | None) -> None:
        self.at, self.runs = at, 0

    def key(self) -> bytes:
        return b"the same data"

    def lost(self, reference: Run, run: Run, samples: Sequence[int]) -> float:
        self.runs += 1
        if self.runs == self.at:
            raise KeyboardInterrupt
        frame = np.full((1, *SIZE, 3), 99, np.uint8)
        return float(
            np.mean(reference({"frame": frame})["classes"] != run({"frame": frame})["classes"])
        )


def test_a_killed_search_goes_on_where_it_was(
    net: SemanticSegmentation, graph: onnx.ModelProto, val: Path
) -> None:
    quantizer = prepare(typed(graph), calibration_samples(net, val / "images"), method="percentile")
    assert quantizer is not None
    candidates = {name: Candidate(1, layer.snr_db) for name, layer in quantizer.layers.items()}

    def run(figure: Killed) -> object:
        with Session.open(serialized(quantizer.source), flavour=ORT) as session:
            return search(candidates, MeasuredLoss(quantizer, figure, session.run, {}), -1.0)

    whole = Killed(None)
    with pytest.raises(KeyboardInterrupt):
        run(Killed(4))
    found = run(whole)
    fresh = Killed(None)
    assert run(fresh) == found
    assert fresh.runs == 0, "everything was measured before"
    assert whole.runs > 0


def test_a_build_reports_what_was_searched(
    net: SemanticSegmentation, val: Path, tmp_path: Path
) -> None:
    made = edgevision.build(
        net, tmp_path / "road.ev", precision="int8", calibration=val / "images", evaluate=val,
        budget=0.02,
    )  # fmt: skip
    assert made.max_loss == 0.02
    bundle = made.bundle
    report = json.loads(bundle.read("reports/search.json"))
    assert report["budget"] == 0.02
    rows = json.loads(bundle.read("reports/layers.json"))["layers"]
    (wide,) = [row for row in rows if not row["is_int8"]]
    assert wide["why"].startswith("for the budget: without it")
    assert wide["harm"] > 0.02
    assert wide["macs"] == 8 * 8 * SIZE[0] * SIZE[1]
    for name in ("search", "layers"):
        with Image.open(bundle.root / "reports" / f"{name}.png") as picture:
            assert min(picture.size) > 100


def test_several_graphs_are_refused_with_the_reason(net: SemanticSegmentation) -> None:
    parts: dict[str, Any] = {"encode": (net, []), "step": (net, [])}
    with pytest.raises(ValueError, match="the model has 2 graphs, encode, step"):
        search_for(net, 0.1, 1, None, parts, silent)


def test_multiply_accumulates_of_every_layer() -> None:
    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
            self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
            self.line = nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.line(self.up(self.conv(x)).mean((2, 3)))
            return found

    spec = TensorSpec("x", DType.FLOAT32, (1, 4, 8, 8))
    model = typed(Tensors(All().eval(), inputs=[spec]).to_onnx())
    found = multiply_accumulates(model, {"x": np.zeros((1, 4, 8, 8), np.float32)}, {})
    assert list(found.values()) == [6 * 4 * 4 * 2 * 9, 6 * 4 * 4 * 5 * 4, 5 * 7]
