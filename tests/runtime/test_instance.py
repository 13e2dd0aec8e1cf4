"""Objects on the run side: masks pasted where they belong, pictures, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, ClassLabel
from edgevision.tasks.instance import TASK, InstanceDecoder, InstanceResult
from edgevision.tasks.pixel_formats import packed
from edgevision.tasks.task import get_task
from edgevision.tasks.timings import Timings

SIZE = (40, 60)
LABELS = (ClassLabel("car", "#2020d0"), ClassLabel("person", "#dc143c"))
NO_FILES = dict[str, bytes]().__getitem__
DECODER = InstanceDecoder(LABELS, CameraFrame("frame", packed("rgb", SIZE)))
TIMES = Timings(0.1, 2.0, 0.3)


def outputs(count: int, **changes: Any) -> dict[str, Any]:
    """Return what an engine with room for five gives."""
    random = np.random.default_rng(0)
    corner = random.uniform(0, 30, (1, 5, 2))
    found = {
        "boxes": np.concatenate([corner, corner + random.uniform(3, 25, (1, 5, 2))], -1),
        "labels": random.integers(1, 3, (1, 5)).astype(np.int32),
        "scores": np.sort(random.uniform(0.2, 1, (1, 5)))[:, ::-1],
        "masks": random.uniform(0, 1, (1, 5, 28, 28)),
        "count": np.array([count], np.int32),
        "overflow": np.array([7], np.int32),
        "converged": np.array([1], np.int32),
    }
    found = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in found.items()}
    return {**found, **changes}


def test_what_was_found_is_told_best_first() -> None:
    found = DECODER.decode(outputs(3), TIMES)
    assert len(found) == 3
    assert found.boxes.shape == (3, 4)
    assert set(found.labels.tolist()) <= {0, 1}
    assert (np.diff(found.scores) <= 0).all()
    assert found.captions()[0] == f"{LABELS[found.labels[0]].name} {found.scores[0]:.2f}"
    assert found.is_exact
    assert found.is_complete
    kept = found.above(float(found.scores[1]))
    assert len(kept) == 2
    np.testing.assert_array_equal(kept.boxes, found.boxes[:2])


def test_an_empty_scene_is_an_answer() -> None:
    found = DECODER.decode(outputs(0), TIMES)
    assert len(found) == 0
    assert found.pasted().shape == get_task("instance").masks(found)["masks"].shape == (0, *SIZE)
    frame = np.full((*SIZE, 3), 9, np.uint8)
    np.testing.assert_array_equal(found.overlay(frame), frame)


def test_doubts_are_told() -> None:
    told = outputs(2, overflow=np.array([1001], np.int32), converged=np.array([0], np.int32))
    found = DECODER.decode(told, TIMES)
    assert not found.is_complete
    assert not found.is_exact


@pytest.mark.parametrize(
    ("count", "changes"), [(6, {}), (-1, {}), (3, {"labels": np.full((1, 5), 3, np.int32)})]
)
def test_an_engine_that_says_what_cannot_be_is_refused(count: int, changes: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match="edgevision verify"):
        DECODER.decode(outputs(count, **changes), TIMES)


def result(box: list[float], cells: np.ndarray) -> InstanceResult:
    return InstanceResult(
        np.array([box], np.float32), np.zeros(1, np.int32), np.ones(1, np.float32),
        LABELS, SIZE, True, True, TIMES, cells[None].astype(np.float32),
    )  # fmt: skip


def naive(box: list[float], cells: np.ndarray) -> np.ndarray:
    """Paste pixel by pixel: the mask with a border of one cell, resized bilinearly."""
    padded = np.pad(cells, 1)
    centre = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    half = [(box[2] - box[0]) / 2 * 30 / 28, (box[3] - box[1]) / 2 * 30 / 28]
    x1, y1 = int(centre[0] - half[0]), int(centre[1] - half[1])
    width = max(int(centre[0] + half[0]) - x1 + 1, 1)
    height = max(int(centre[1] + half[1]) - y1 + 1, 1)
    found = np.zeros(SIZE, bool)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            if not (0 <= x - x1 < width and 0 <= y - y1 < height):
                continue
            u = min(max((x - x1 + 0.5) * 30 / width - 0.5, 0), 29)
            v = min(max((y - y1 + 0.5) * 30 / height - 0.5, 0), 29)
            i, j = int(v), int(u)
            below, right = min(i + 1, 29), min(j + 1, 29)
            top = padded[i, j] * (1 - u + j) + padded[i, right] * (u - j)
            bottom = padded[below, j] * (1 - u + j) + padded[below, right] * (u - j)
            found[y, x] = top * (1 - v + i) + bottom * (v - i) > 0.5
    return found


@pytest.mark.parametrize(
    "box",
    [[10, 8, 40, 30], [-8, -5, 20, 12], [50, 30, 75, 55], [20, 20, 20.4, 20.3], [0, 0, 60, 40]],
    ids=["inside", "over the corner", "over the far corner", "smaller than a pixel", "all of it"],
)
def test_a_mask_is_pasted_into_its_box(box: list[float]) -> None:
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    cells = np.clip(1.3 - x**2 - 1.5 * y**2, 0, 1)
    (found,) = result(box, cells).pasted()
    assert (found != naive(box, cells)).mean() < 1e-3


def test_a_picture_shows_objects_in_their_colours_and_leaves_the_rest() -> None:
    frame = np.full((*SIZE, 3), 100, np.uint8)
    drawn = result([10, 10, 40, 30], np.ones((28, 28))).overlay(frame)
    assert tuple(drawn[10, 20]) == (0x20, 0x20, 0xD0), "the box"
    assert tuple(drawn[20, 25]) == (69, 69, 149), "inside: 45 % of the colour"
    assert tuple(drawn[35, 50]) == (100, 100, 100), "outside"
    with pytest.raises(FrameError, match="the frame that was run"):
        result([0, 0, 9, 9], np.ones((28, 28))).overlay(frame[:-1])


def stage() -> Stage:
    frame = TensorSpec("frame", DType.UINT8, (1, *SIZE, 3))
    shapes: dict[str, tuple[DType, tuple[int, ...]]] = {
        "boxes": (DType.FLOAT32, (1, 5, 4)),
        "labels": (DType.INT32, (1, 5)),
        "scores": (DType.FLOAT32, (1, 5)),
        "masks": (DType.FLOAT32, (1, 5, 28, 28)),
        "count": (DType.INT32, (1,)),
        "overflow": (DType.INT32, (1,)),
        "converged": (DType.INT32, (1,)),
    }
    specs = tuple(TensorSpec(name, dtype, shape) for name, (dtype, shape) in shapes.items())
    return Stage("main", "g.onnx", (frame,), specs, {name: Tolerance(0.0) for name in shapes})


SETTINGS = {"channel_order": "bgr", "classes": [{"name": "car", "color": "#2020d0"}]}


def test_the_task_is_read_from_a_manifest() -> None:
    task = TASK.decoder(SETTINGS, (stage(),), NO_FILES)
    assert task == InstanceDecoder(
        (ClassLabel("car", "#2020d0"),), CameraFrame("frame", packed("bgr", SIZE))
    )
    frame = np.zeros((*SIZE, 3), np.uint8)
    fed: Any = task.feeds(frame)["frame"]
    assert np.shares_memory(fed, frame)
    assert fed.shape == (1, *SIZE, 3)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"channel_order": "hsv"}, {}, "channel_order is 'hsv'"),
        ({"classes": []}, {}, "expected a list of 1 to 256 classes"),
        (
            {},
            {"outputs": stage().outputs[:1], "tolerances": {"boxes": Tolerance(0.0)}},
            "expected uint8",
        ),
        ({}, {"inputs": (TensorSpec("frame", DType.FLOAT32, (1, 4, 4, 3)),)}, "expected uint8"),
        (
            {},
            {"inputs": (TensorSpec("frame", DType.UINT8, (2, 4, 4, 3)),)},
            r"expected uint8\[1, H, W, 3\], got",
        ),
    ],
)
def test_a_manifest_of_another_task_is_refused(
    settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    made = dataclasses.replace(stage(), **changes)
    with pytest.raises(BundleFormatError, match=message):
        TASK.decoder({**SETTINGS, **settings}, (made,), NO_FILES)
