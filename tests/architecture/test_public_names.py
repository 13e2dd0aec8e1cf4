"""What `import edgevision` offers is pinned: a change here is a change for users."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path

import pytest

import edgevision

HOMES = {
    "Bundle": "edgevision.bundle.directory",
    "ClosedError": "edgevision.errors",
    "Counters": "edgevision.runtime.stream.schedule",
    "CudaError": "edgevision.errors",
    "EdgeVisionError": "edgevision.errors",
    "FrameDroppedError": "edgevision.errors",
    "FrameError": "edgevision.errors",
    "FrameLostError": "edgevision.errors",
    "Model": "edgevision.runtime.model",
    "Pipeline": "edgevision.runtime.stream.pipeline",
    "RunError": "edgevision.errors",
    "RunOptions": "edgevision.runtime.options",
    "StalledError": "edgevision.errors",
    "StreamOptions": "edgevision.runtime.stream.schedule",
    "Ticket": "edgevision.runtime.stream.ticket",
    "build": "edgevision.export.build",
    "finish": "edgevision.engines.extend",
    "load": "edgevision.runtime.load",
    "load_streaming": "edgevision.runtime.load",
    "load_words": "edgevision.runtime.load",
}


def test_the_names_are_these() -> None:
    assert set(edgevision.__all__) == {*HOMES, "__version__"}
    assert edgevision.__all__ == sorted(edgevision.__all__)
    assert dir(edgevision) == edgevision.__all__


@pytest.mark.parametrize("name", HOMES)
def test_a_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(edgevision, name) is getattr(importlib.import_module(HOMES[name]), name)


def test_the_version_is_the_installed_one() -> None:
    assert edgevision.__version__ == importlib.metadata.version("edgevision")


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'edgevision' has no attribute 'biuld'"):
        _ = edgevision.biuld  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(edgevision.__file__).read_text())
    seen = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(HOMES.items()) <= seen
