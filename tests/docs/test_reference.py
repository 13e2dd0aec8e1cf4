"""The reference has every public name; each says what it takes, where people start it shows it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import edgevision
import edgevision.batch
import edgevision.errors
import edgevision.export
import edgevision.testing
from edgevision.tasks.task import task_names
from tests.docs.pages import ROOT

_DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:\w+):: ([\w.]+)$", re.MULTILINE)
MODULES = (edgevision, edgevision.batch, edgevision.export, edgevision.testing)
# Where people start; the docstring of each has an example.
STARTS = (
    edgevision.build,
    edgevision.finish,
    edgevision.load,
    edgevision.load_streaming,
    edgevision.Model.generate,
    edgevision.Model.stream,
    edgevision.Pipeline,
    edgevision.Pipeline.input,
    *(getattr(edgevision.export, name) for name in edgevision.export.ADAPTERS),
)


def _named(page: str) -> list[str]:
    return _DIRECTIVE.findall((ROOT / "docs" / "reference" / f"{page}.md").read_text("utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module: Any) -> None:
    page = module.__name__.rpartition(".")[2]
    found = [name.removeprefix(f"{module.__name__}.") for name in _named(page)]
    assert sorted(found) == sorted(module.__all__)


def test_the_reference_has_every_error() -> None:
    errors = [
        f"edgevision.errors.{name}"
        for name, kind in vars(edgevision.errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    ]
    assert sorted(n for n in _named("errors") if n != "edgevision.errors") == sorted(errors)


def test_the_reference_has_every_task_s_result() -> None:
    homes = {name.split(".")[2] for name in _named("results") if name.endswith("Result")}
    assert homes == set(task_names())


def _public() -> list[Any]:
    found = [getattr(edgevision, name) for name in edgevision.__all__ if name != "__version__"]
    found += [getattr(edgevision.export, name) for name in edgevision.export.__all__]
    found += [getattr(edgevision.testing, name) for name in edgevision.testing.__all__]
    methods = [
        method
        for kind in found
        if inspect.isclass(kind)
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]
    return [*found, *methods]


@pytest.mark.parametrize("thing", _public(), ids=lambda thing: thing.__qualname__)
def test_a_public_name_says_what_it_takes(thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    assert text.partition("\n")[0].endswith(".")
    if inspect.isclass(thing):
        if not issubclass(thing, Exception):
            text += inspect.getdoc(thing.__init__) or ""
        else:
            return
    if thing is edgevision.Ticket:  # made by `submit` alone
        return
    if ("Args:" in text) or ("Attributes:" in text):
        for name, parameter in inspect.signature(thing).parameters.items():
            named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if named and name != "self":
                assert re.search(rf"^ +{name}: ", text, re.MULTILINE), name


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__qualname__)
def test_where_people_start_there_is_an_example(start: Any) -> None:
    assert ">>> " in (inspect.getdoc(start) or "")
