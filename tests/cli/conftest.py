"""Small nets, files and a way to run the command line in a process of its own."""

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

import numpy as np
import pytest
from PIL import Image

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
            try:
                ended = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                ended = int(stop.code or 0)
        outcome = Outcome(ended, out.getvalue(), err.getvalue())
        if code is not None:
            assert outcome.code == code, f"{outcome.code}: {outcome.out}\n{outcome.err}"
        return outcome


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a net, its classes, frames and labels."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(NET)
    (folder / "classes.txt").write_text("road #804080\nsky\n\nperson #ff0000\n")
    rng = np.random.default_rng(0)
    for part, kinds in (("frames", ("",)), ("val", ("images", "labels"))):
        for kind in kinds:
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
    for i in range(20):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((48, 32), Image.Resampling.BICUBIC)
        picture.save(folder / "frames" / f"{i:02}.png")
        if i < 4:
            picture.save(folder / "val" / "images" / f"{i}.png")
            label = np.asarray(picture)[..., 0] // 86
            Image.fromarray(label.astype(np.uint8)).save(folder / "val" / "labels" / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def shell(project: Path) -> Shell:
    return Shell(project)


@pytest.fixture(scope="session")
def call(project: Path) -> Call:
    return Call(project)


@pytest.fixture(scope="session")
def int8_bundle(shell: Shell, project: Path) -> Outcome:
    """The outcome of building `int8.ev` for the CPU, RTX and an Orin, with accuracy."""
    return shell(
        "build", "nets:net", "--size", "32x48", "--classes", "classes.txt", "--precision", "int8",
        "--calibration", "frames", "--evaluate", "val", "--target", "host-cpu", "--target", "rtx",
        "--target", "jetson-orin-jp6", "--out", "int8.ev", "--json",
        code=4,
    )  # fmt: skip
