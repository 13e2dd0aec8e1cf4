"""Optional packages: imported, or missed with the line that installs them."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from edgevision import _optional
from edgevision._optional import installed_version, require
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


def package(folder: Path, module: str, distribution: str, version: str) -> None:
    (folder / f"{module}.py").write_text("1 / 0  # it must not be imported")
    told = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
    (told / "top_level.txt").write_text(module)


def test_versions_of_known_modules_are_found_without_listing_every_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "tensorrt_lean", "tensorrt-lean-cu12", "10.3.0")
    package(tmp_path, "rarely_asked_for", "of-another-name", "2.1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    listings: list[int] = []
    listed = importlib.metadata.packages_distributions

    def counted() -> object:
        listings.append(1)
        return listed()

    monkeypatch.setattr(importlib.metadata, "packages_distributions", counted)
    _optional._all_distributions.cache_clear()
    try:
        assert installed_version("tensorrt_lean") == "10.3.0"
        assert not listings
        assert installed_version("rarely_asked_for") == "2.1"
        assert installed_version("not_there") is None
        assert installed_version("tensorrt") is None
        assert len(listings) == 1
    finally:
        _optional._all_distributions.cache_clear()


def test_onnx_runtime_is_imported_with_its_telemetry_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    previous = sys.modules.pop("onnxruntime", None)
    try:
        for chosen, seen in ((None, "1"), ("0", "0")):
            monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
            if chosen is not None:
                monkeypatch.setenv("ORT_DISABLE_TELEMETRY", chosen)
            assert require("onnxruntime", extra="ort").seen == seen
            del sys.modules["onnxruntime"]
    finally:
        if previous is not None:
            sys.modules["onnxruntime"] = previous
