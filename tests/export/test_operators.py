"""docs/operators.md says what its JSON says, and a third of its modules still does that.

The third is one net with an output for each module, in FP16 on ONNX Runtime: ten seconds.
`EDGEVISION_TEST_OPERATORS=1` tries all, each by itself, in INT8 and by TensorRT-RTX as well: 20
minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgevision.bundle.targets import get_target
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.export import Tensors
from edgevision.export.graph.rules import check_graph
from edgevision.export.recipe import export_stage
from scripts import try_operators
from tests.parts.operator_modules import GROUPS, NAMES, PICTURE, SEQUENCE, Together

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "try_operators.py"
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "operators.json").read_text())
ROWS = {name: row for group in DOCUMENT["modules"].values() for name, row in group.items()}
PRECISIONS = ("fp16", "int8")
RIGHT = [n for n in NAMES if not any(ROWS[n][p][k] for p in PRECISIONS for k in ("ort", "rule"))]
THIRD = RIGHT[::3]


def test_the_page_shows_what_was_measured() -> None:
    assert try_operators.page(DOCUMENT) == (ROOT / "docs" / "operators.md").read_text("utf-8")


def test_every_module_has_a_row_and_no_answer_is_wrong() -> None:
    assert {g: list(rows) for g, rows in DOCUMENT["modules"].items()} == {
        group: list(modules) for group, modules in GROUPS.items()
    }
    assert len(ROWS) >= 160
    assert len(RIGHT) >= 180
    for row in ROWS.values():
        # What is refused says so before any graph of it is shipped; a wrong answer is never built.
        assert all("the process ended" not in row[p]["ort"] for p in PRECISIONS)


def test_a_third_is_right_and_no_rule_objects() -> None:
    assert len(THIRD) >= len(NAMES) // 4
    inputs = [TensorSpec("x", DType.FLOAT32, PICTURE), TensorSpec("s", DType.FLOAT32, SEQUENCE)]
    dice = np.random.default_rng(0)
    feeds = [
        {spec.name: dice.standard_normal(spec.shape).astype(np.float32) for spec in inputs}
        for _ in range(2)
    ]
    adapter = Tensors(Together(THIRD).eval(), inputs=inputs)
    stage = export_stage(adapter, precision="fp16", samples=feeds)
    assert len(stage.golden_outputs) == len(THIRD)
    model = onnx.load_from_string(stage.graphs["fp16"])
    found = check_graph(model, get_target("jetson-orin-jp6"))
    assert [f for f in found if f.severity == "error"] == []


@pytest.mark.timeout(7200)
@pytest.mark.skipif(
    not os.environ.get("EDGEVISION_TEST_OPERATORS"),
    reason="all, with TensorRT-RTX, take 20 minutes: EDGEVISION_TEST_OPERATORS=1",
)
def test_all_are_as_they_were() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--print"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for name, row in ROWS.items():
        told = {p: {k: not v for k, v in row[p].items()} for p in PRECISIONS}
        again = {p: {k: not v for k, v in found[name][p].items()} for p in PRECISIONS}
        assert again == told, name
