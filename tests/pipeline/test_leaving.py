"""A process with pipelines open ends as it was told to, and never by an abort.

EDGEVISION_TEST_EXITS=20 tries every way in every state as often as the project promises; CI does a
few of them once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.pipeline.leaving import CODES, KINDS, STATES, write_graph

TIMES = int(os.environ.get("EDGEVISION_TEST_EXITS", "0"))
FEW = [
    ("exit", "in flight", "host"),
    ("raise", "in a callback", "simulated"),
    ("term", "idle", "host"),
    ("twice", "in flight", "host"),
    ("fork", "in flight", "host"),
]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaving") / "slow.onnx"
    write_graph(path)
    return path


@pytest.mark.parametrize(
    ("way", "state", "kind"), [*product(CODES, STATES, KINDS)] if TIMES else FEW
)
def test_a_process_ends_as_it_was_told_to(way: str, state: str, kind: str, graph: Path) -> None:
    command = [sys.executable, "-m", "tests.pipeline.leaving", way, state, kind, str(graph)]
    for _ in range(TIMES or 1):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode == CODES[way], done.stderr[-2000:]
        assert "terminate called" not in done.stderr
        assert "Fatal Python error" not in done.stderr
