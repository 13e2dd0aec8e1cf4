"""docs/architecture.md is drawn from the contract and the packages, and cannot drift."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts import draw_architecture as script

ROOT = Path(__file__).parents[2]
MAX_FLOORS, MAX_FILES = 9, 4


def test_the_page_is_what_the_script_draws() -> None:
    page = script.PAGE.read_text("utf-8")
    assert script.drawn(page) == page, "run: python scripts/draw_architecture.py"


def test_a_page_that_drifted_is_found(tmp_path: Path) -> None:
    page = script.PAGE.read_text("utf-8")
    assert script.drawn(page.replace("bundle", "bumble")) != page.replace("bundle", "bumble")


def test_the_script_runs_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/draw_architecture.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_house_has_few_floors_and_few_loose_files() -> None:
    rooms = [room for floor in script.floors() for room in floor]
    assert len(script.floors()) <= MAX_FLOORS
    assert len(rooms) == len(set(rooms))
    loose = {path.name for path in (ROOT / "edgevision").glob("*.py")} - {
        "__init__.py",
        "__main__.py",
    }
    assert len(loose) <= MAX_FILES, loose


def test_every_room_says_what_it_is_for() -> None:
    for package in (ROOT / "edgevision").rglob("__init__.py"):
        assert script.purpose(package), package
