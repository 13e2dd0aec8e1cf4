"""One small bundle of two stages, and what it takes to change a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.parts.two_stages import write_bundle


@pytest.fixture(scope="session")
def good_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle that no test changes."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "good.ev").root


@pytest.fixture
def root(good_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    return Path(shutil.copytree(good_bundle, tmp_path / "copy.ev"))
