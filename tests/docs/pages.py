"""The code blocks of the pages, and a process that types all of one page into an empty folder.

A block says what it is (python, sh, toml, yaml, text) and is run, unless the line before it is
`<!-- not run: REASON -->`. `<!-- setup ... -->` is Python that the reader does not see.

python -m tests.docs.pages PAGE.md      # in the folder that it may fill
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ("python", "sh", "toml", "yaml")
SHOWN = ("text", "json")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\s`]*).*$")
_NOT_RUN = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->$")
_WHOLE_PAGE = re.compile(r"^<!-- blocks: (?P<reason>.+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block: its first line's number, its language, and why it is not run, "" if it is."""

    line: int
    language: str
    text: str
    reason: str


def pages() -> list[Path]:
    """Return every page that the repository shows to users."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(p for p in (ROOT / "docs").rglob("*.md") if "build" not in p.parts),
        *sorted((ROOT / "checkpoints").rglob("README.md")),
        ROOT / "benchmarks" / "README.md",
    ]


def blocks(text: str) -> list[Block]:
    """Return the code blocks of a page, set-up included, as `python` of line 0's manner."""
    whole = _WHOLE_PAGE.search(text)
    found: list[Block] = []
    lines, number = text.splitlines(), 0
    while number < len(lines):
        line, first = lines[number], number + 1
        number += 1
        if line.strip() == "<!-- setup":
            end = lines.index("-->", number)
            found.append(Block(first, "setup", "\n".join(lines[number:end]), ""))
            number = end + 1
        elif match := _FENCE.match(line):
            end = next(
                (i for i in range(number, len(lines)) if lines[i].strip() == match["fence"]),
                len(lines),
            )
            body = textwrap.dedent("\n".join(lines[number:end]))
            marked = _NOT_RUN.match(lines[first - 2]) if first > 1 else None
            reason = marked["reason"] if marked else whole["reason"] if whole else ""
            if not match["language"].startswith("{"):
                found.append(Block(first, match["language"], body + "\n", reason))
            number = end + 1
    return found


def type_page(page: Path) -> None:
    """Run the blocks of a page, one after the other, in the working directory."""
    names: dict[str, Any] = {"__name__": "__main__"}
    sys.path[:0] = [str(Path(__file__).parent), "."]
    for block in blocks(page.read_text("utf-8")):
        if block.reason or block.language in SHOWN:
            continue
        where = f"{page.name}:{block.line}"
        print(f"-- {where} ({block.language})", flush=True)
        if block.language in ("python", "setup"):
            # As many lines in front as the page has, so that a traceback names the page's line.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        elif block.language == "sh":
            _shell(block.text, where)
        else:
            name = re.match(r"# (\S+)\n", block.text)
            if name is None:
                raise SystemExit(f"{where}: a file's first line is '# its name'")
            Path(name[1]).write_text(block.text, "utf-8")


def _shell(text: str, where: str) -> None:
    from edgevision.cli import main

    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            words = shlex.split(command, comments=True)
            if words[:1] == ["edgevision"]:
                with contextlib.redirect_stdout(sys.stderr):
                    code = main(words[1:])
                if code not in (0, 4):  # 4: pending on the target
                    raise SystemExit(f"{where}: {command}: code {code}")
            elif words[:2] == ["cp", "-r"]:
                shutil.copytree(words[2], words[3])
            elif words:
                raise SystemExit(f"{where}: '{command}' is not a command of edgevision: mark it")


if __name__ == "__main__":
    type_page(Path(sys.argv[1]))
