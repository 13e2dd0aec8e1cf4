"""What the pages' code needs around it: a page's `<!-- setup` comment calls these.

What needs torch is imported where it is used: pages of the run side do without.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.parts.tiny_bundles import semantic_bundle

SIZE = (96, 128)


def frames(count: int, *names: str) -> None:
    """Copy some of the shipped photos into frames/, as `edgevision demo` leaves all of them."""
    from edgevision.export.zoo import shipped_photos

    found = [shipped_photos() / name for name in names]
    found += [p for p in sorted(shipped_photos().glob("*.jpg")) if p not in found]
    Path("frames").mkdir()
    for path in found[:count]:
        shutil.copy(path, "frames")


def labelled(count: int) -> None:
    """Make frames/ and val/ for unet-camvid: whatever is above the middle is sky, below, road."""
    frames(count)
    shutil.copytree("frames", "val/images")
    Path("val/labels").mkdir()
    for path in Path("val/images").iterdir():
        label = np.zeros((480, 640), np.uint8)
        label[240:] = 3
        Image.fromarray(label).save(f"val/labels/{path.stem}.png")


def scenes(net: str, folder: str) -> None:
    """Copy the scenes that come with a net."""
    from edgevision.export.zoo import zoo_entry

    samples = zoo_entry(net).samples
    assert samples is not None
    shutil.copytree(samples, folder)


def small_bundle(path: str) -> None:
    """Make a bundle of a small segmentation net, without torch."""
    semantic_bundle(Path(path), size=SIZE)


class Camera:
    """Frames of the small bundle's size, with their stamps."""

    def __init__(self, count: int, size: tuple[int, int] = SIZE) -> None:
        self.count, self.size = count, size

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield a frame and when it was taken."""
        for number in itertools.islice(itertools.count(), self.count):
            yield np.full((*self.size, 3), number, np.uint8), time.perf_counter_ns()


def frame(size: tuple[int, int]) -> np.ndarray:
    """Return one of the shipped photos as a camera of `size` gives it."""
    from edgevision.export.zoo import shipped_photos

    photo = Image.open(shipped_photos() / "bus-road.jpg").convert("RGB")
    return np.asarray(photo.resize((size[1], size[0])))
