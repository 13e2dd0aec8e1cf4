"""The Mask R-CNN example on a handful of scenes: its losses, its files, and a resumed run."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from tests.parts.nets import import_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return import_example("train_instances")


def options(data: Path, out: Path, *, resume: bool = False) -> Namespace:
    return Namespace(
        digits=data / "digits.npz", photos=data, out=out, encoder_weights=None, epochs=2, steps=1,
        batch=2, lr=1e-3, seed=3, scored=1, resume=resume,
    )  # fmt: skip


def test_a_resumed_run_repeats_an_unbroken_one(
    example: ModuleType, digits_and_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.train(options(digits_and_photos, tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example, "plot", interrupt)
        example.train(options(digits_and_photos, tmp_path / "broken"))
    example.train(options(digits_and_photos, tmp_path / "broken", resume=True))
    whole, broken = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")
    )
    for name, values in whole.items():
        np.testing.assert_array_equal(values, broken[name], err_msg=name)
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(np.isfinite(row["loss"]) for row in rows)
    with Image.open(tmp_path / "whole" / "scenes.png") as picture:
        assert picture.size == (4 * 320, 3 * 256)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_split_keeps_digits_and_photos_apart(
    example: ModuleType, digits_and_photos: Path
) -> None:
    stock = example.read_stock(digits_and_photos / "digits.npz", digits_and_photos)
    training, unseen = example.split(stock)
    assert training.labels.tolist() == list(range(8))
    assert unseen.labels.tolist() == [8, 9]
    assert (len(training.photos), len(unseen.photos)) == (4, 1)


def test_perfect_boxes_cost_nothing(example: ModuleType) -> None:
    losses = import_example("instance_losses")
    from edgevision.export.adapters.detections import DELTA_WEIGHTS, decode

    random = np.random.default_rng(0)
    corner = random.uniform(0, 50, (2, 9, 2))
    boxes, targets = (
        torch.from_numpy(np.concatenate([corner + i, corner + i + size], -1))
        for i, size in (
            (0, random.uniform(5, 40, (2, 9, 2))),
            (3, random.uniform(5, 40, (2, 9, 2))),
        )
    )
    moves = losses.encode(boxes, targets, DELTA_WEIGHTS)
    torch.testing.assert_close(decode(boxes, moves, DELTA_WEIGHTS), targets)


def test_a_cut_of_a_mask_is_the_mask(example: ModuleType) -> None:
    losses = import_example("instance_losses")
    mask = torch.zeros(1, 40, 60)
    mask[0, 8:22, 10:24] = 1
    whole = losses.cut_masks(mask, torch.tensor([[10.0, 8.0, 24.0, 22.0]]), 28)
    assert whole[0, 1:-1, 1:-1].min() == 1
    left = losses.cut_masks(mask, torch.tensor([[3.0, 8.0, 17.0, 22.0]]), 28)[0]
    assert (left[1:-1, :13] < 0.5).all()
    assert (left[1:-1, 15:] > 0.5).all()
