"""What a native library does to a verb is told, and the signals of a person reach it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_RUN = """
import os, signal, sys
from edgevision.cli.watched import watched
from edgevision.errors import EdgeVisionError
def verb():
    {verb}
try:
    code = watched(verb)
except EdgeVisionError as error:
    print(f"{{type(error).__name__}}: {{error}}")
    code = 9
sys.exit(code)
"""


def run(verb: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN.format(verb=verb)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("verb", "code", "said"),
    [
        ("return 0", 0, ""),
        ("print('once'); return 4", 4, "once\n"),
        ("sys.exit(3)", 3, ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 9, "RunError: a library crashed (SIGSEGV)"),
        ("os.abort()", 9, "RunError: a library crashed (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 9, "InsufficientMemoryError: it was killed"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_how_a_verb_ends_is_how_it_is_told(verb: str, code: int, said: str) -> None:
    found, out = run(verb)
    assert found == code
    assert out.startswith(said) if said else not out


def test_a_command_that_was_started_deaf_to_its_children_ends() -> None:
    script = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    done = subprocess.run(
        [sys.executable, "-c", script + _RUN.format(verb="return 5")],
        cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 5


def test_a_signal_to_the_command_reaches_the_verb() -> None:
    verb = """
    signal.signal(signal.SIGINT, lambda *_: sys.exit(77))
    print("ready", flush=True)
    while True: signal.pause()"""
    with subprocess.Popen(
        [sys.executable, "-c", _RUN.format(verb=verb.strip())],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 77


def test_a_net_that_crashes_is_told_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import os, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        os.abort()\n"
        "def make():\n"
        "    return Net()\n"
    )
    (tmp_path / "classes.txt").write_text("a\nb\n")
    words = "build nets:make --size 8x8 --classes classes.txt --out net.ev --json".split()
    done = subprocess.run(
        [sys.executable, "-m", "edgevision", *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("edgevision: a library crashed (SIGABRT)")
    assert json.loads(done.stdout)["error"]["type"] == "RunError"
    assert not (tmp_path / "net.ev").exists()
