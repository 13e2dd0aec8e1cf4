"""docs/how-to-add.md is typed here, step by step, and what it promises holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-add.md").read_text("utf-8")
BLOCK = re.compile(r"^```\w+\n# (\S+\.(?:py|toml))\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^```python\n# a row of [\w/.]+\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What a person would do with the result, in a process that has the house with the toys in it.
USED = """
import json, sys
import numpy as np, torch
from torch import nn
import edgevision
from edgevision.bundle.targets import get_target
from edgevision.errors import ParityError
from edgevision.export.source import resolve
from edgevision.runtime.files.batch import run_files

class Mean(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))

class Liar(nn.Module):
    calls = 0
    def forward(self, x):
        return x.mean((1, 2, 3)) if torch.compiler.is_exporting() else x.mean((1, 2, 3)) + 0.5

told = {"home": edgevision.__file__}
summary = edgevision.build(
    Mean(), "bright.ev", task="brightness", size=(32, 48), precision="fp16", evaluate="val",
    targets=["host-cpu", "reference-cpu.toml"],
)
told["scores"] = {score.form: score.figures() for score in summary.scores}
frame = np.full((32, 48, 3), 51, np.uint8)
with edgevision.load("bright.ev") as model:
    told["usual"] = model(frame).level
    told["texts"] = [frame.text for frame in run_files(model, "val/images", "seen").frames]
with edgevision.load("bright.ev", target="reference-cpu") as model:
    told["slow"], told["explain"] = model(frame).level, model.explain()
try:
    edgevision.build(Liar(), "liar.ev", task="brightness", size=(8, 8))
except ParityError as error:
    told["liar"] = str(error)
told["target"] = get_target("my-board.toml").sm
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the toys did, in a copy of the house that the page's steps were typed into."""
    folder = tmp_path_factory.mktemp("typed")
    shutil.copytree(
        ROOT / "edgevision", folder / "edgevision", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, text in BLOCK.findall(PAGE):
        (folder / name).write_text(text, "utf-8")
    registry = folder / "edgevision" / "tasks" / "task.py"
    registry.write_text(_with(registry.read_text(), r"_NAMES = \(", '_NAMES = ("brightness", '))
    registry = folder / "edgevision" / "bundle" / "flavours.py"
    (row,) = ROW.findall(PAGE)
    registry.write_text(_with(registry.read_text(), r"_ALL = \(", f"{row}\n_ALL = (REFERENCE, "))
    for kind in ("images", "labels"):
        (folder / "val" / kind).mkdir(parents=True)
    for level in (10, 100, 200):
        picture = Image.new("RGB", (48, 32), (level,) * 3)
        picture.save(folder / "val" / "images" / f"{level}.png")
        (folder / "val" / "labels" / f"{level}.txt").write_text(str(level / 255))
    done = subprocess.run(
        [sys.executable, "-c", USED],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "EDGEVISION_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["home"].startswith(str(folder)), "the copy was not what ran"
    return {**found, "seen": sorted(os.listdir(folder / "seen"))}


def _with(text: str, pattern: str, replacement: str) -> str:
    changed, count = re.subn(f"^{pattern}", lambda _: replacement, text, flags=re.MULTILINE)
    assert count == 1, pattern
    return changed


def test_the_page_has_a_file_for_each_step() -> None:
    assert [name for name, _ in BLOCK.findall(PAGE)] == [
        "edgevision/tasks/brightness.py",
        "edgevision/export/adapters/brightness.py",
        "edgevision/metrics/brightness.py",
        "my-board.toml",
        "edgevision/runtime/backends/reference.py",
        "edgevision/engines/reference.py",
        "reference-cpu.toml",
    ]


def test_the_task_builds_and_runs(told: dict[str, Any]) -> None:
    assert told["usual"] == pytest.approx(0.2, abs=2e-3)
    assert sorted(told["texts"]) == ["39% bright", "4% bright", "78% bright"]
    assert told["seen"] == ["10.overlay.jpg", "100.overlay.jpg", "200.overlay.jpg"]


def test_a_graph_that_does_something_else_is_refused(told: dict[str, Any]) -> None:
    assert "does not do what the model does" in told["liar"]


def test_the_metric_scores_every_form(told: dict[str, Any]) -> None:
    assert list(told["scores"]) == ["torch", "fp32", "fp16"]
    assert all(figures["mean error"] < 2e-3 for figures in told["scores"].values())


def test_the_target_is_read(told: dict[str, Any]) -> None:
    assert told["target"] == ["8.7"]


def test_the_backend_runs_the_graph(told: dict[str, Any]) -> None:
    assert told["slow"] == pytest.approx(told["usual"], abs=2e-3)
    assert "ONNX reference" in told["explain"]
