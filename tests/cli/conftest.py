"""Small nets, files and a way to run the command line in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.parts.captures import keep_captures
from tests.parts.shell import NET, Call, Outcome, Shell


@pytest.fixture(scope="session", autouse=True)
def captures(tmp_path_factory: pytest.TempPathFactory) -> None:
    keep_captures(tmp_path_factory.getbasetemp())


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
