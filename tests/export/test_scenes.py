"""The digit scenes: their truths agree, their captions are what geometry says, seeds repeat."""

from __future__ import annotations

import hashlib
import sys
from itertools import permutations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.parts.nets import import_example

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "tests" / "data" / "digits.npz"
SIZE = (100, 100)


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    return import_example("scenes")


@pytest.fixture(scope="module")
def stock(scenes: ModuleType):  # type: ignore[no-untyped-def]
    """Real digits over two photos that no decoder had a hand in."""
    y, x = np.mgrid[:300, :400]
    photo = np.stack([x % 256, y % 256, (x * y // 7) % 256], -1).astype(np.uint8)
    with np.load(DIGITS) as file:
        return scenes.Stock((photo, photo[::-1]), file["images"], file["labels"])


def test_truths_of_a_scene_agree(scenes: ModuleType, stock: object) -> None:
    for index in range(60):
        scene = scenes.compose(stock, 5, index, most=4)
        assert scene.frame.shape == (128, 160, 3)
        assert scene.frame.dtype == scene.class_map.dtype == np.uint8
        assert len(scene.masks) == len(scene.boxes) == len(scene.labels) > 0
        assert scene.masks.sum(0).max() == 1
        painted = (scene.masks * scene.labels[:, None, None]).sum(0)
        np.testing.assert_array_equal(scene.class_map, painted)
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            ys, xs = np.nonzero(mask)
            np.testing.assert_array_equal(box, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        said = scenes.words(scene.caption)
        assert set(said) <= set(scenes.VOCABULARY)
        digits = [scenes.CLASSES.index(word) for word in said if word.isdigit()]
        assert sorted(digits) == sorted(scene.labels)


def test_a_digit_stands_out_from_what_is_behind_it(scenes: ModuleType, stock: object) -> None:
    for index in range(20):
        scene = scenes.compose(stock, 6, index)
        luminance = scenes.luminance(scene.frame.astype(np.int64))
        for mask, box in zip(scene.masks, scene.boxes.astype(int), strict=True):
            window = np.s_[box[1] : box[3], box[0] : box[2]]
            ink, ground = luminance[window][mask[window]], luminance[window][~mask[window]]
            assert abs(ink.mean() - ground.mean()) > 20


def test_a_scene_is_the_same_on_every_machine(scenes: ModuleType, stock: object) -> None:
    digest = hashlib.sha256()
    captions = []
    for index in range(3):
        scene = scenes.compose(stock, 1, index)
        captions.append(scene.caption)
        for array in (scene.frame, scene.class_map, scene.masks, scene.boxes, scene.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
    assert captions == [
        "a 4 to the left of a 2, and a 0 on the left",
        "a 9 to the left of a 0, and a 3 on the right",
        "a 7 to the left of a 2, and a 0 above",
    ]
    assert digest.hexdigest()[:16] == "f59c6c61811b0c59"


def test_seed_index_and_size_each_matter(scenes: ModuleType, stock: object) -> None:
    frames = [
        scenes.compose(stock, *key).frame.tobytes() for key in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(frames)) == 4
    assert scenes.compose(stock, 0, 0, size=(192, 256)).class_map.shape == (192, 256)


@pytest.mark.parametrize(
    ("centres", "caption"),
    [
        ([(50, 52)], "a 3 in the middle"),
        ([(15, 45)], "a 3 on the left"),
        ([(50, 85)], "a 3 at the bottom"),
        ([(15, 15)], None),
        ([(64, 50)], None),
        ([(20, 50), (80, 45)], "a 3 to the left of an 8"),
        ([(80, 45), (20, 50)], "an 8 to the left of a 3"),
        ([(52, 80), (50, 20)], "an 8 above a 3"),
        ([(20, 20), (70, 70)], None),
        ([(20, 20), (20, 60), (80, 45)], "a 3 above an 8, and a 1 on the right"),
        ([(20, 80), (60, 80), (45, 20)], "a 3 to the left of an 8, and a 1 above"),
        ([(20, 50), (50, 50), (80, 50)], None),
    ],
)
def test_captions_are_what_geometry_says(
    scenes: ModuleType, centres: list[tuple[int, int]], caption: str | None
) -> None:
    things = [
        ((x - 5, y - 5, x + 5, y + 5), label)
        for (x, y), label in zip(centres, (4, 9, 2), strict=False)
    ]
    for order in permutations(things):
        boxes, labels = (list(part) for part in zip(*order, strict=True))
        assert scenes.describe(boxes, labels, SIZE) == caption


def test_misuse_is_refused(scenes: ModuleType, stock: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a photo is 300x400, scenes are 320x320"):
        scenes.compose(stock, 0, 0, size=(320, 320))
    with pytest.raises(ValueError, match="no place for 1 digits in 20x20"):
        scenes.compose(stock, 0, 0, size=(20, 20), most=1)
    with pytest.raises(SystemExit, match=r"found no \.jpg"):
        scenes.read_stock(DIGITS, tmp_path)
    np.savez(tmp_path / "digits.npz", images=np.zeros((3, 8, 8)), labels=np.zeros(3))
    with pytest.raises(SystemExit, match=r"images are float64\[3, 8, 8\]"):
        scenes.read_stock(tmp_path / "digits.npz", tmp_path)


def test_the_sheet_is_drawn(
    scenes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "grid.png"
    photos = ROOT / "examples" / "photos"
    arguments = ["scenes.py", "--digits", str(DIGITS), "--photos", str(photos), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    scenes.main()
    first = scenes.compose(scenes.read_stock(DIGITS, photos), 0, 0)
    with Image.open(out) as page:
        assert page.size == (4 * (2 * 2 * 160 + 8), 4 * (2 * 128 + 28))
        background = np.asarray(page)[0:256:2, 0:320:2]
    untouched = (background == first.frame).all(-1)
    assert untouched.mean() > 0.9  # all but the outlines of boxes
