"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgevision.cli import main

NET = '''
import torch
from torch import nn

def net():
    """A net of three classes whose logits are a learned mix of the channels."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))

def broken():
    raise RuntimeError("no such backbone")

def nothing():
    return 42

def far(outputs, labels):
    return {"mean error": abs(outputs["y"] - labels["want"]).mean(), "samples": 1}
'''


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs `edgevision ...` in a folder that holds a small project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: object, code: int | None = 0) -> Outcome:
        command = [sys.executable, "-m", "edgevision", *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "EDGEVISION_CACHE": str(self.folder / "cache")},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in outcome.err, outcome.err
        if code is not None:
            assert outcome.code == code, f"{outcome.code}: {outcome.out}\n{outcome.err}"
        return outcome


def _show(message: Any, category: Any, filename: str, lineno: int, *_: object) -> None:
    """Write a warning as a process of its own does."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


class Call(Shell):
    """Runs `edgevision ...` in this process: torch is imported once, not once a command."""

    def __call__(self, *arguments: object, code: int | None = 0) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            patch.chdir(self.folder)
            patch.setenv("EDGEVISION_CACHE", str(self.folder / "cache"))
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(warnings, "formatwarning", warnings.formatwarning)
            patch.setattr(warnings, "showwarning", _show)  # pytest keeps them to itself
            try:
                ended = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                ended = int(stop.code or 0)
        outcome = Outcome(ended, out.getvalue(), err.getvalue())
        if code is not None:
            assert outcome.code == code, f"{outcome.code}: {outcome.out}\n{outcome.err}"
        return outcome
