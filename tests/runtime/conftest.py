"""A tiny segmentation graph and bundles of it, made without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevision.bundle.directory import Bundle
from tests.parts.tiny_bundles import semantic_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return semantic_bundle(tmp_path / "tiny.ev")
