"""docs/runtime.md and examples/drive.py do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parts.tiny_bundles import semantic_bundle

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "runtime.md").read_text(), re.M | re.S
)
STRICT = [sys.executable, "-X", "dev", "-W", "error"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the bundles of the page."""
    path = tmp_path_factory.mktemp("guide")
    for name in ("road.ev", "road-v2.ev"):
        semantic_bundle(path / name)
    return path


def camera() -> Iterator[tuple[np.ndarray, int]]:
    for number in range(5):
        yield np.full((6, 10, 3), number, np.uint8), time.time_ns()


def test_the_page_s_code_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, over what a reader has: a bundle, a frame, a camera."""
    monkeypatch.chdir(folder)
    steered: list[object] = []
    names: dict[str, Any] = {
        "frame": np.zeros((6, 10, 3), np.uint8), "camera": camera, "steer": steered.append,
    }  # fmt: skip
    for block in BLOCKS:
        if not block.startswith("# "):
            exec(compile(block, "docs/runtime.md", "exec"), names)
    assert len(steered) > 1


def test_the_page_s_program_runs(folder: Path) -> None:
    (program,) = (block for block in BLOCKS if block.startswith("# "))
    file = folder / program.split()[1]
    file.write_text(program)
    done = subprocess.run(
        [*STRICT, file.name], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(6, 10)"] * 3


def test_the_driving_loop_counts_every_frame(folder: Path) -> None:
    command = [*STRICT, str(ROOT / "examples" / "drive.py"), "road.ev", "road-v2.ev"]
    done = subprocess.run(
        [*command, "--seconds", "2", "--hz", "300"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "could not be recorded" in done.stderr
    assert "'submitted'" in done.stdout
