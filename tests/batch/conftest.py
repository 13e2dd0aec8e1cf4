"""A labelled folder of small frames, a bundle for it, and another that sees red for blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevision.bundle.directory import Bundle
from tests.parts.tiny_bundles import semantic_bundle

FRAMES, SHARD = 60, 8
SIZE = (12, 20)


def write_frames(folder: Path, count: int) -> Path:
    """Write `count` frames with labels, all of them different."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(5)
    for number in range(count):
        frame = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        labels = rng.integers(0, 3, SIZE).astype(np.uint8)
        Image.fromarray(frame).save(folder / "images" / f"{number:06d}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{number:06d}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("data") / "frames", FRAMES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return semantic_bundle(tmp_path_factory.mktemp("bundles") / "tiny.ev")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return semantic_bundle(tmp_path_factory.mktemp("bundles") / "bgr.ev", channel_order="bgr")
