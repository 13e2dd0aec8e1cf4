"""Every code block of README and docs is run, or says why not.

README's is examples/tour.py, which is run always, as the pages of `CHEAP`; EDGEVISION_TEST_PAGES=1
runs all (`make docs`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import CODE, ROOT, SHOWN, blocks, pages

CHEAP = ("docs/howto/control-loop.md",)
_EVERY = bool(os.environ.get("EDGEVISION_TEST_PAGES"))
_NAMES = [str(page.relative_to(ROOT)) for page in pages()]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]*))?\)")


def _has_code(name: str) -> bool:
    found = blocks((ROOT / name).read_text("utf-8"))
    return any(block.language in CODE and not block.reason for block in found)


RUN = [name for name in _NAMES if _has_code(name) and (_EVERY or name in CHEAP)]


@pytest.mark.parametrize("name", _NAMES)
def test_a_block_says_what_it_is(name: str) -> None:
    for block in blocks((ROOT / name).read_text("utf-8")):
        assert block.language in (*CODE, *SHOWN, "setup"), f"{name}:{block.line}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUN)
def test_a_page_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.pages", str(ROOT / name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEVISION_CACHE": str(tmp_path / ".cache")},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", _NAMES)
def test_an_anchor_is_a_heading(name: str) -> None:
    page = ROOT / name
    for link, anchor in _LINK.findall(page.read_text("utf-8")):
        if anchor and not link.startswith("http"):
            assert anchor in _anchors(page.parent / link), f"{link}#{anchor}"


def test_what_is_not_run_is_found() -> None:
    text = (
        "<!-- not run: no board -->\n```sh\nls\n```\n\n  ```python\n  a = 1\n  ```\n```\nx\n```\n"
    )
    found = [(b.line, b.language, b.text, b.reason) for b in blocks(text)]
    assert found == [
        (2, "sh", "ls\n", "no board"),
        (6, "python", "a = 1\n", ""),
        (9, "", "x\n", ""),
    ]
