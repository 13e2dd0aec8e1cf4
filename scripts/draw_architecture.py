"""Draws the floors and rooms of docs/architecture.md from the import contract and the packages.

python scripts/draw_architecture.py          # writes the page
python scripts/draw_architecture.py --check  # fails if the page is not what would be written
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "edgevision"
BEGIN, END = "<!-- {} begins: scripts/draw_architecture.py -->", "<!-- {} ends -->"


def floors(root: Path = ROOT) -> list[list[str]]:
    """Return the floors of the import contract, top to bottom."""
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def purpose(module: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    return text.partition("\n")[0]


def home(room: str) -> Path:
    """Return the file that says what a room is for."""
    package = PACKAGE / room / "__init__.py"
    return package if package.exists() else PACKAGE / f"{room}.py"


def draw_floors() -> str:
    """Draw a line for each floor, and below it what each of its rooms is for."""
    rows: list[str] = []
    names = [room for floor in floors() for room in floor]
    width = max(map(len, names)) + 2
    for number, floor in enumerate(floors()):
        if number:
            rows.append("    │")
        for index, room in enumerate(floor):
            mark = "   " if index else f" {len(floors()) - number} "
            rows.append(f"{mark} {room:{width}}{purpose(home(room))}".rstrip())
    return "\n".join(["```text", *rows, "```"])


def draw_rooms() -> str:
    """Draw a table of every folder, with its files by their first lines."""
    rows = ["| Folder | Purpose | Files |", "|---|---|---|"]
    for package in sorted(PACKAGE.rglob("__init__.py")):
        folder = package.parent
        if folder == PACKAGE:
            continue
        files = sorted(
            f.stem for f in folder.glob("*.py") if f.stem not in ("__init__", "__main__")
        )
        name = folder.relative_to(PACKAGE).as_posix()
        rows.append(f"| `{name}/` | {purpose(package)} | {', '.join(files)} |")
    return "\n".join(rows)


def drawn(page: str) -> str:
    """Return the page with both pictures drawn again."""
    for name, picture in (("floors", draw_floors()), ("rooms", draw_rooms())):
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{PAGE}: expected the lines '{begin}' and '{end}'")
        page = f"{before}{begin}\n{picture}\n{end}{after}"
    return page


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit code."""
    page = PAGE.read_text("utf-8")
    right = drawn(page)
    if arguments == ["--check"]:
        if page != right:
            print(f"{PAGE} is not what the code is: python scripts/draw_architecture.py")
        return int(page != right)
    PAGE.write_text(right, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
