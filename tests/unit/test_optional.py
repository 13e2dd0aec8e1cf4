"""Optional packages: imported, or missed with the line that installs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevision._optional import require
from edgevision.errors import MissingDependencyError


def test_what_is_there_is_returned() -> None:
    assert require("json", extra="export") is json
    assert require("json.decoder", extra="export") is json.decoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inner", "json.no_such"])
def test_what_is_missing_names_the_pip_line(module: str) -> None:
    with pytest.raises(MissingDependencyError) as missed:
        require(module, extra="rtx")
    message = f"{module} is not installed. Install it with: pip install 'edgevision[rtx]'"
    assert str(missed.value) == message
    assert missed.value.name == module
    assert isinstance(missed.value.__cause__, ImportError)


def test_a_broken_package_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingDependencyError, match="half_there No module named 'no_such_library'"
    ):
        require("half_there", extra="media")


def test_other_errors_of_a_package_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "badly_there.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("badly_there", extra="media")
