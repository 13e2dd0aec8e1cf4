"""The registry of runtimes: each row is whole, and everything that it names is there."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from edgevision.bundle.flavours import Flavour, flavour, flavours

PROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_names_are_found_and_unique() -> None:
    names = [known.name for known in flavours()]
    assert len(set(names)) == len(names)
    assert [flavour(name) for name in names] == list(flavours())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 'qnn', expected ort, .*install a newer edgevision"):
        flavour("qnn")


@pytest.mark.parametrize("known", flavours(), ids=str)
def test_a_row_names_what_is_there(known: Flavour) -> None:
    opens = importlib.import_module(known.backend).open_program
    assert list(inspect.signature(opens).parameters)[1:] == ["device", "options"]
    assert importlib.import_module(known.builder).BUILDER.flavour is known
    assert known.modules
    assert f"\n{known.extra} = [" in PROJECT
    assert known.remedy == f"pip install 'edgevision[{known.extra}]'"


@pytest.mark.parametrize("known", flavours(), ids=str)
def test_what_runs_anywhere_needs_no_gpu(known: Flavour) -> None:
    assert not (known.is_graph and known.on_gpu)
    assert not (known.gpu_if_asked and known.on_gpu)
