"""Frames of several cameras in one call: each is answered as it is alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import edgevision
from edgevision.errors import FrameError
from edgevision.export import SemanticSegmentation
from edgevision.runtime.files.batch import run_files

SIZE = (24, 32)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val")
    rng = np.random.default_rng(0)
    for kind, high in (("images", 256), ("labels", 2)):
        (folder / kind).mkdir()
        for i in range(4):
            shape = (*SIZE, 3) if kind == "images" else SIZE
            pixels = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


def test_a_batch_is_its_frames(val: Path, tmp_path: Path) -> None:
    made = {
        count: edgevision.build(
            SemanticSegmentation(net(), size=SIZE, classes=["a", "b"], cameras=count),
            tmp_path / f"{count}.ev", evaluate=val,
        )
        for count in (None, 3)
    }  # fmt: skip
    assert made[3].scores[-1] == made[None].scores[-1]
    assert made[3].bundle.golden("main")[0]["frame"].shape[1:] == (3, *SIZE, 3)
    photos = np.stack([np.asarray(Image.open(val / f"images/{i}.png")) for i in range(3)])
    with (
        edgevision.load(tmp_path / "None.ev") as one,
        edgevision.load(tmp_path / "3.ev") as three,
    ):
        together = three(photos)
        for photo, found in zip(photos, together, strict=True):
            np.testing.assert_array_equal(found.mask, one(photo).mask)
        with three.stream() as pipeline:
            ticket = pipeline.submit(torch.from_numpy(photos.copy()))
            np.testing.assert_array_equal(ticket.result()[2].mask, found.mask)
        with pytest.raises(FrameError, match="3"):
            three(photos[0])
        done = [run_files(model, val / "images").frames for model in (one, three)]
    assert [frame.text for frame in done[0]] == [frame.text for frame in done[1]]


def test_the_name_that_siblings_had_is_taken_for_one_more_release() -> None:
    with pytest.warns(DeprecationWarning, match="batch= is now cameras="):
        made = SemanticSegmentation(net(), size=SIZE, classes=["a", "b"], batch=6)
    assert made.inputs[0].shape == (6, *SIZE, 3)
