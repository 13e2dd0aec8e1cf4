"""What lies in the working directory is imported for `package.module:factory` only, and last."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgevision
from edgevision.bench.gate.sides import of_package
from edgevision.bench.loadgen import drive
from edgevision.errors import RunError
from tests.parts.two_stages import write_bundle

ROOT = Path(edgevision.__file__).parents[1]
# As pip writes it: Python then puts the folder of this file first.
SCRIPT = "import sys\nfrom edgevision.cli import main\nsys.exit(main())\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder as a stranger packs it: a bundle, and modules that leave a mark."""
    folder = tmp_path / "archive"
    folder.mkdir()
    write_bundle(folder / "road.ev")
    for name in ("numpy", "onnx", "pip", "cryptography"):
        mark = tmp_path / "MARK"
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    return folder


@pytest.fixture(params=["the script", "python -m"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "python -m":
        return [sys.executable, "-m", "edgevision"]
    script = tmp_path / "bin" / "edgevision"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def run(start: list[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*start, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEVISION_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "verb",
    [
        ("verify", "road.ev", "--files-only"),
        ("inspect", "road.ev"),
        ("cache", "ls"),
    ],
    ids=lambda verb: verb[0],
)
def test_no_verb_imports_it(
    verb: tuple[str, ...], start: list[str], archive: Path, tmp_path: Path
) -> None:
    done = run(start, archive, *verb)
    assert not (tmp_path / "MARK").exists(), done
    assert done.returncode == 0, done.stderr


def test_the_export_side_imports_nothing_of_it(archive: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "edgevision"]
    done = run(start, archive, "check", "road.ev", "--target", "host-cpu")  # its graphs are none
    assert not (tmp_path / "MARK").exists(), done


def test_a_factory_is_found_there_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pytest.importorskip("edgevision.export.source")
    start = [sys.executable, "-m", "edgevision"]
    (tmp_path / "nets.py").write_text("import numpy\ndef net():\n    return numpy.__version__\n")
    (tmp_path / "numpy.py").write_text("__version__ = 'a stranger'\n")
    done = run(start, tmp_path, "build", "nets:net", "--out", "a.ev")
    assert "'nets:net' returned str, expected a torch module" in done.stderr
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{np.__file__} has no 'no_such_net'")):
        source.resolve("numpy:no_such_net")


def test_the_folder_is_left_when_the_factory_has_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pytest.importorskip("edgevision.export.source")
    (tmp_path / "no_net_of_ours.py").write_text("def net():\n    return 42\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(edgevision.EdgeVisionError, match="returned int"):
        source.resolve("no_net_of_ours:net")
    assert sys.path == before
    sys.modules.pop("no_net_of_ours")


def test_loadgen_s_process_imports_nothing_of_it(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen")
    monkeypatch.chdir(archive)
    with pytest.raises(RunError, match=r"'.*nowhere\.ev' does not exist"):
        drive("nowhere.ev", duration_s=0.1)
    assert not (tmp_path / "MARK").exists()


def test_pip_is_not_taken_from_it(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive / "broken.whl").write_bytes(b"not a wheel")
    (tmp_path / "side").mkdir()
    monkeypatch.chdir(archive)
    with pytest.raises(RunError, match="cannot be installed"):
        of_package("broken.whl", "road.ev", tmp_path / "side")
    assert not (tmp_path / "MARK").exists()
