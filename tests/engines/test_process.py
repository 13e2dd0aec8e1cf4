"""Whatever a child process does, the parent gets an answer or a BuildError with the log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevision.engines.process import run_child
from edgevision.errors import BuildError, InsufficientMemoryError
from edgevision.progress import silent

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _children_see_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(action: str, **options: Any) -> tuple[Any, str]:
    return run_child("tests.engines.misbehaving", action, silent, **options)


def test_a_result_comes_with_progress_and_log() -> None:
    heard: list[tuple[str, int, int]] = []
    result, log = run_child("tests.engines.misbehaving", "result", lambda *step: heard.append(step))
    assert result == {"a": 1}
    assert heard == [("a", 1, 2)]
    assert log == "\N{REPLACEMENT CHARACTER} hi\n"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("abort", r"the builder crashed \(SIGABRT\)"),
        ("kill", "killed, most likely for memory.*lower workspace_bytes or optimization_level"),
        ("end", "ended with code 0 and no result; the last it said: nothing"),
        ("exit", "ended with code 3 and no result; the last it said: something broke"),
        ("half a message", "ended with code 4 and no result"),
        ("nonsense", "sent something else than a message"),
        ("number", "sent something else than a message: b'7'"),
        ("endless", "sent something else than a message: [0-9]+ bytes without an end"),
        ("error", "the graph is odd"),
        ("result, then crash", r"the builder crashed \(SIGABRT\)"),
        ("no such action", "ended with code 1 and no result; the last it said: KeyError"),
    ],
)
def test_every_bad_end_is_a_build_error(action: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        run(action)
    assert isinstance(caught.value, InsufficientMemoryError) == (action == "kill")


@pytest.mark.parametrize("action", ["hang", "close everything and stay"])
def test_a_child_that_stays_too_long_is_ended(action: str) -> None:
    with pytest.raises(BuildError, match=r"took longer than 0\.5 s and was ended"):
        run(action, timeout_s=0.5)


def test_a_child_is_missed_though_its_pipes_stay_open() -> None:
    with pytest.raises(BuildError, match="SIGABRT") as caught:
        run("die and leave a process")
    left = re.search("left ([0-9]+)", caught.value.log)
    assert left is not None
    os.kill(int(left[1]), signal.SIGKILL)


def test_a_long_log_is_cut_to_its_end() -> None:
    _, log = run("babble")
    assert log.endswith("\nthe end\n")
    assert re.match(r"\[[0-9]+ bytes before this are lost\]\n", log)
    assert len(log) < (1 << 20) + 100


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_exception_in_progress_ends_the_child(kind: type[BaseException]) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        raise kind

    before = _children()
    with pytest.raises(kind):
        run_child("tests.engines.misbehaving", "result", stop)
    assert _children() == before


def _children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def test_a_long_request_to_a_dead_child_is_an_error() -> None:
    with pytest.raises(BuildError, match=r"No module named tests\.engines\.none"):
        run_child("tests.engines.none", "x" * (1 << 20), silent)


def test_the_users_folder_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('imported from the wrong place')")
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from edgevision.engines.process import run_child\n"
        "from edgevision.progress import silent\n"
        "print(run_child('tests.engines.misbehaving', 'result', silent)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'a': 1}\n", done.stderr


def test_a_child_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEVISION_KEY_PASSPHRASE", "SIGNING_KEY_PEM"):
        monkeypatch.setenv(name, "Zm9vYmFy")
    _, log = run_child("tests.engines.misbehaving", "environment", silent)
    assert "PATH" in log
    assert "Zm9vYmFy" not in log
