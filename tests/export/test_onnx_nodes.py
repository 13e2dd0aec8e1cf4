"""The official ONNX node tests are right or refused; of 1,615 a tenth is kept here and tried.

In FP16, whose builds prove FP32 as well: half a minute.

`EDGEVISION_TEST_ONNX_NODES=FOLDER` tries all of onnx/backend/test/data/node of onnx 1.19's wheel,
in both precisions: half an hour. What became of each is in tests/data/onnx_nodes.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "data" / "onnx_nodes.zip"
RECORD: dict[str, Any] = json.loads((ROOT / "tests" / "data" / "onnx_nodes.json").read_text())


def tried(source: str | Path, out: Path, *arguments: str) -> dict[str, Any]:
    script = ROOT / "scripts" / "try_onnx_nodes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(source), "--out", str(out), *arguments],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_all_of_them_were_right_or_refused_with_a_reason() -> None:
    for precision in ("fp32", "fp16"):
        counts = RECORD["counts"][precision]
        assert sum(counts.values()) == 1615
        assert counts.keys() <= {"right", "left", "superseded", "refused"}
        told = RECORD["refused"][precision]
        assert len(told) == counts["refused"]
        assert all(text.startswith("refused: ") and len(text) > 30 for text in told.values())


def test_a_tenth_is_as_it_was(tmp_path: Path) -> None:
    found = tried(KEPT, tmp_path / "found.json", "--precision", "fp16")
    with zipfile.ZipFile(KEPT) as kept:
        names = {name.partition("/")[0] for name in kept.namelist()}
    assert sum(found["counts"]["fp16"].values()) == len(names) >= 160
    refused = set(found["refused"]["fp16"])
    assert refused == names & set(RECORD["refused"]["fp16"])


@pytest.mark.timeout(7200)
@pytest.mark.skipif(
    not os.environ.get("EDGEVISION_TEST_ONNX_NODES"),
    reason="all take half an hour: EDGEVISION_TEST_ONNX_NODES=FOLDER of onnx 1.19's node tests",
)
def test_all_are_as_they_were(tmp_path: Path) -> None:
    found = tried(os.environ["EDGEVISION_TEST_ONNX_NODES"], tmp_path / "found.json")
    assert found["counts"] == RECORD["counts"]
