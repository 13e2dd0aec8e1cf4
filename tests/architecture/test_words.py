"""The field's own English: the worst of the words that grew here stay out of code and pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What to write instead stands behind each.
WORDS = {
    r"(?<![Tt]here )\bis no (bundle|plain|number|integer|dict|folder|file|picture|plan|key|entry|"
    r"manifest|object|public|private|ONNX|input|generator|wheel)\b": "is not a ...",
    r"\bno sound\b|\bis sound\b|\b[Aa] sound\b": "valid",
    r"\banew\b": "again, recomputed",
    r"\bhogs?\b": "background load",
    r"\btwins?\b": "its A/A control, a quantised copy",
    r"\bweather\b": "noise of the machine",
    r"\bspeaks word by word\b": "streams tokens",
    r"\bobituary\b": "exit reason",
    r"\bmaybe #": "optional #",
}
NAMES = {
    r"_(MOST|LEAST)_": "_MAX_, _MIN_",
    r"^told$": "pop_errors, payload, reported",
    r"^(gathered|behind_scores|joined|taught|looped|stepped|unmet)$": "a verb",
    r"^(HOPELESS|Telling)$": "EXPIRED, PipelineLog",
}


def _texts(path: Path) -> list[tuple[int, str]]:
    source = path.read_text("utf-8")
    if path.suffix != ".py":
        return list(enumerate(source.splitlines(), 1))
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _names(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [(node.lineno, node.name) for node in ast.walk(tree) if isinstance(node, kinds)]
    targets = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return found + [(n.lineno, n.id) for n in targets if isinstance(n.ctx, ast.Store)]


def odd(found: list[tuple[int, str]], words: dict[str, str]) -> list[str]:
    """Return the lines that hold one of the words, with what to write instead."""
    return [
        f"{line}: {match[0]!r}: write {instead}"
        for line, text in found
        for word, instead in words.items()
        if (match := re.search(word, text))
    ]


def _pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "edgevision").rglob("*.py")), *_pages()], ids=lambda path: path.name
)
def test_texts_are_in_the_field_s_words(path: Path) -> None:
    assert odd(_texts(path), WORDS) == []


def test_names_are_in_the_field_s_words() -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for path in sorted((ROOT / "edgevision").rglob("*.py"))
        if (bad := odd(_names(path), NAMES))
    }
    assert found == {}


def test_planted_words_are_found(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text('_MOST_TIME = 1\ndef told(): raise ValueError("x is no bundle")\n')
    assert odd(_texts(path), WORDS) == ["2: 'is no bundle': write is not a ..."]
    assert len(odd(_names(path), NAMES)) == 2
