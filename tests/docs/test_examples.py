"""The examples run as they say; the tour always, all of them with EDGEVISION_TEST_PAGES=1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import edgevision_docs
from tests.docs.pages import ROOT, blocks

EXAMPLES = ROOT / "examples"
MAX_LINES = 80
# Long, because it holds a module around somebody else's; tests/export/test_hf_captioner.py runs it.
LONGER = {"export/hf_captioner.py"}
# Run by tests/export/test_sources.py and test_hf_captioner.py, where their packages are installed.
ELSEWHERE = {f"export/{name}.py" for name in ("torchvision_nets", "smp_nets", "segformer")} | LONGER
ARGUMENTS = {
    "tour.py": "",
    "run/picture.py": "small.ev frames/bus-road.jpg",
    "run/cameras.py": "small.ev frames --fps 50",
    "run/words.py": "",
    "export/own_net.py": "--frames frames --out own.ev",
    "export/onnx_file.py": "small.ev/stages/main/model.onnx --precision fp32 --out file.ev",
    "train/segmenter.py": "--data val --classes a,b,c,d --steps 2 --out trained.ev",
    "train/quantized.py": "--steps 2 --out quantized.ev",
    "measure/ages.py": "small.ev --seconds 1",
    "measure/precisions.py": "fcn-camvid --calibration frames --evaluate val",
}
NAMES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))
RUN = [name for name in ARGUMENTS if name == "tour.py" or os.environ.get("EDGEVISION_TEST_PAGES")]


def test_every_example_is_run_somewhere() -> None:
    assert {*NAMES} - {"drive.py", "run/drive.py"} == {*ARGUMENTS, *ELSEWHERE}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    # A driving loop has a camera that drops out, two nets, a callback and a count of it all.
    assert len(text.splitlines()) <= MAX_LINES or name in {*LONGER, "drive.py"}
    assert f"python examples/{name}" in text


@pytest.mark.parametrize("name", RUN)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name != "tour.py":
        edgevision_docs.labelled(2)
        edgevision_docs.small_bundle("small.ev")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *ARGUMENTS[name].split()],
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEVISION_CACHE": str(tmp_path / ".cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def test_the_code_of_readme_is_the_tour_s() -> None:
    tour = (EXAMPLES / "tour.py").read_text("utf-8")
    code = [
        block.text
        for block in blocks((ROOT / "README.md").read_text("utf-8"))
        if block.language == "python"
    ]
    assert len(code) == 2
    for text in code:
        assert text in tour, text
    assert re.search(r"^# %%", tour, re.MULTILINE)
