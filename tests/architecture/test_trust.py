"""docs/trust.md promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text().splitlines()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE
    if line.startswith("|") and not line.startswith("|---")
]


def test_every_claim_names_its_tests_or_says_that_there_is_none() -> None:
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    claims = [row for row in ROWS if row[-1] != "Test"]
    assert len(claims) == len(ROWS) - 3, "each table's last column is of tests"
    for *_, held in claims:
        names = [name.strip("` ") for name in held.split(",")]
        assert held == "not checked" or all(
            name in tests or (ROOT / name).is_file() for name in names
        ), held


def test_nothing_is_claimed_beside_the_tables() -> None:
    prose = [line for line in PAGE if line and line[0] not in "|#"]
    assert len(prose) == 1, prose
