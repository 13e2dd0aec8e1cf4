"""What a message tells to type exists: flags, verbs, extras of pip and arguments in Python."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import edgevision
import edgevision.export
from edgevision.cli import parser as whole_parser

ROOT = Path(__file__).parents[2]
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_VERB = re.compile(r"\bedgevision ([a-z]+)\b(?= (?:-|[A-Z]|$))")
_EXTRA = re.compile(r"edgevision\[([a-z,]+)\]")
_ARGUMENT = re.compile(r"\((\w+)=\)")
# Flags of other programs that messages name.
_FOREIGN = set(
    "--system-site-packages --show --no-deps --force-reinstall --hard-dereference".split()
)
# What follows the product's name in a sentence.
_PROSE = {"in", "knows"}


def _messages() -> Iterator[tuple[str, str]]:
    """Give each text of the package that is no docstring, and where it stands."""
    for path in sorted((ROOT / "edgevision").rglob("*.py")):
        tree = ast.parse(path.read_text())
        inside = {
            id(part)
            for whole in ast.walk(tree)
            if isinstance(whole, ast.JoinedStr | ast.Expr)
            for part in ast.walk(whole)
            if part is not whole and (isinstance(whole, ast.JoinedStr) or part is whole.value)
        }
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
                yield where, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and id(node) not in inside:
                yield where, str(node.value)


@cache
def messages() -> list[tuple[str, str]]:
    """Return the texts of several words: a flag alone is one of a command that the package runs."""
    return [(where, text) for where, text in _messages() if " " in text]


def _unknown(pattern: re.Pattern[str], known: set[str]) -> list[str]:
    found = [
        f"{where}: {name}"
        for where, text in messages()
        for match in pattern.findall(text)
        for name in match.split(",")
        if name not in known
    ]
    return found


def _parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    pending = [("", whole_parser())]
    while pending:
        name, parser = pending.pop()
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending += action._name_parser_map.items()


def test_there_are_messages_to_look_at() -> None:
    assert sum(bool(_FLAG.search(text)) for _, text in messages()) > 50
    assert sum(bool(_ARGUMENT.search(text)) for _, text in messages()) >= 3


def test_every_flag_exists() -> None:
    known = {flag for _, parser in _parsers() for flag in parser._option_string_actions}
    assert not _unknown(_FLAG, known | _FOREIGN)


def test_every_verb_exists() -> None:
    assert not _unknown(_VERB, {name for name, _ in _parsers()} | _PROSE)


def test_every_extra_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (extras,) = re.findall(r"\[project\.optional-dependencies\]\n(.*?)\n\[", text, re.DOTALL)
    assert not _unknown(_EXTRA, set(re.findall(r"^([a-z]+) = ", extras, re.MULTILINE)))


def test_every_argument_exists() -> None:
    public = [getattr(edgevision, name) for name in edgevision.__all__]
    public += [getattr(edgevision.export, name) for name in edgevision.export.__all__]
    known = set[str]()
    for one in public:
        for call in (one, *(m for _, m in inspect.getmembers(one, inspect.isfunction))):
            with contextlib.suppress(TypeError, ValueError):  # a constant, or an exception
                known |= inspect.signature(call).parameters.keys()
    assert not _unknown(_ARGUMENT, known)


@pytest.mark.parametrize("planted", ["give --no-such-flag", "edgevision mendit BUNDLE", "(nope=)"])
def test_a_planted_remedy_is_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "messages", lambda: [("here", planted)])
    tests = (test_every_flag_exists, test_every_verb_exists, test_every_argument_exists)
    failed = 0
    for test in tests:
        try:
            test()
        except AssertionError:
            failed += 1
    assert failed == 1
