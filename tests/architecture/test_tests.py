"""The tests keep their own rules: listed directories, time limits, no skip where none may be."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TIME_LIMITS_S

TESTS = Path(__file__).parents[1]


def _run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under this project's settings, in a project of its own."""
    project = folder.parents[1]
    folder.mkdir(parents=True)
    for package in (project / "tests", folder):
        (package / "__init__.py").touch()
    shutil.copy(TESTS / "conftest.py", project / "tests")
    shutil.copy(TESTS.parent / "pyproject.toml", project)
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, timeout=100, check=False
    )


def test_every_directory_is_listed() -> None:
    found = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert found <= {*TIME_LIMITS_S, "data", "parts"}


SKIPS = "import pytest\ndef test_a():\n    pytest.skip('no GPU')\ndef test_b(): pass\n"
SKIPS_ALL = "import pytest\npytest.skip('no GPU', allow_module_level=True)\n"


@pytest.mark.parametrize("text", [SKIPS, SKIPS_ALL + "def test_a(): pass\n"])
def test_a_skip_in_unit_fails(tmp_path: Path, text: str) -> None:
    done = _run(tmp_path / "tests" / "unit", text + "def test_c(): pass\n")
    assert done.returncode != 0, done.stdout
    assert "nothing may be skipped here" in done.stdout


def test_a_skip_elsewhere_is_counted(tmp_path: Path) -> None:
    done = _run(tmp_path / "tests" / "gpu", SKIPS)
    assert done.returncode == 0, done.stdout
    assert "skipped: 1 (1 x no GPU)" in done.stdout


def test_an_unlisted_directory_is_an_error(tmp_path: Path) -> None:
    done = _run(tmp_path / "tests" / "misc", "def test_a(): pass\n")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "tests/misc is not listed" in done.stdout + done.stderr


ENDLESS = """
import time
from tests.conftest import TIME_LIMITS_S
TIME_LIMITS_S["unit"] = 1
def test_a():
    time.sleep(60)
"""


def test_an_endless_test_is_stopped(tmp_path: Path) -> None:
    done = _run(tmp_path / "tests" / "unit", ENDLESS)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "Timeout" in done.stdout
