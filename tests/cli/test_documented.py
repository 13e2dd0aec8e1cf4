"""What the documentation tells people to type is taken by the real parser; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from edgevision.cli import parser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part[0] == "." for part in page.relative_to(ROOT).parts)
)
_LINE = re.compile(r"^(?:\$ )?(?:sudo )?(?:\S*/)?edgevision ((?:[a-z]+) .*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _commands(page: Path) -> list[str]:
    """Return what stands after `edgevision` in a page's code blocks, `&&` apart, remarks off."""
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = _LINE.findall("\n".join(blocks).replace("\\\n", " "))
    parts = [part for line in lines for part in line.split(" && edgevision ")]
    return [re.sub(r"\s+#.*", "", part) for part in parts]


TOLD = sorted({(page.name, command) for page in PAGES for command in _commands(page)})
UNITS = sorted(
    (unit.name, command)
    for unit in (ROOT / "deploy" / "systemd").iterdir()
    for command in re.findall(r"^Exec\w+=\S*/edgevision (.*)$", unit.read_text(), re.MULTILINE)
)


def test_there_are_commands_to_hold() -> None:
    assert len(TOLD) > 20
    assert len(UNITS) == 1


@pytest.mark.parametrize(("page", "command"), TOLD + UNITS)
def test_a_command_is_taken(page: str, command: str) -> None:
    parser().parse_args(shlex.split(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if not link.startswith(("https://", "http://", "mailto:")):
            assert (page.parent / link).exists(), link
