"""The shipped nets where there is no clone: from edgevision-zoo, held to their hashes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgevision.errors import FileReadError
from edgevision.export.zoo import zoo_entry, zoo_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
USED = "from edgevision.export.zoo import *; print(zoo_names(), shipped_photos())"


def _alone(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder that has the package edgevision, and no clone around it."""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "edgevision", tmp_path / "edgevision", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_without_a_clone_the_package_has_the_nets(alone: Path) -> None:
    (alone / "edgevision_zoo").symlink_to(ROOT / "checkpoints")
    done = _alone(alone, "-c", USED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{zoo_names()} {alone / 'edgevision_zoo' / 'photos'}"


def test_without_either_the_package_is_named(alone: Path) -> None:
    verbs = ["demo"], ["build", "unet-camvid", "--out", "a.ev"]
    done = _alone(
        alone, "-c", f"from edgevision.cli import main; print([main(verb) for verb in {verbs}])"
    )
    assert done.stdout == "[3, 2]\n", done.stderr
    assert done.stderr.count("pip install edgevision-zoo") == 2


def test_weights_that_are_not_the_card_s_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevision.export.zoo._REPOSITORY", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    shutil.copytree(ROOT / "checkpoints" / "gan-digits", tmp_path / "gan-digits")
    weights = zoo_entry("gan-digits").weights
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(FileReadError, match=r"the model card says .* pip install --force-reinst"):
        _ = zoo_entry("gan-digits").weights


def test_both_distributions_are_of_one_version() -> None:
    code, zoo = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
        for folder in (".", "checkpoints")
    )
    assert code["version"] == zoo["version"]
    assert zoo["requires-python"] == code["requires-python"]
    major, minor, _ = code["version"].split(".")
    assert zoo["dependencies"] == [f"edgevision>={major}.{minor},<{major}.{int(minor) + 1}"]


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


@pytest.mark.parametrize("name", zoo_names())
def test_a_net_s_two_files_state_the_same_figures(name: str) -> None:
    """Each figure of model.json, which the demo's page shows, stands in the card's tables."""
    table = "".join(
        line
        for line in (zoo_entry(name).folder / "README.md").read_text("utf-8").splitlines(True)
        if line.startswith("|")
    )
    stated = [(float(t), _digits(t)) for t in re.findall(r"\d+\.\d+", table)]
    stated += [(value / 100, digits + 2) for value, digits in stated]
    for form, figure in zoo_entry(name).metrics.items():
        places = _digits(str(figure))
        assert any(
            abs(value - figure) <= 0.501 * 10.0 ** -min(digits, places) for value, digits in stated
        ), (form, figure)
