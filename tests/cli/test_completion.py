"""Shells complete verbs, options and choices by the script that `edgevision completion` prints."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edgevision.cli import main
from edgevision.cli.completion import SHELLS


@pytest.fixture(params=SHELLS)
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(["completion", request.param]) == 0
    return request.param, capsys.readouterr().out


def test_the_shell_takes_it(script: tuple[str, str]) -> None:
    shell, text = script
    program = shutil.which("bash" if shell == "zsh" and not shutil.which("zsh") else shell)
    if program is None:
        assert "complete -c edgevision" in text
        return
    done = subprocess.run([program, "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["bu"], "build"),
        (["bench", "--sce"], "--scenario"),
        (["bench", "--scenario", "pa"], "paced"),
        (["build", "--precision", "in"], "int8"),
        (["build", "frames"], ""),  # left to the shell's own files
    ],
)
def test_bash_completes(words: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    line = " ".join(f"'{word}'" for word in ["edgevision", *words])
    asked = f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _edgevision; echo "${{COMPREPLY[*]}}"'
    command = ["bash", "-c", f"{capsys.readouterr().out}\n{asked}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
