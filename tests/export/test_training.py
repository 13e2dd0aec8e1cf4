"""The training example on a handful of images: its files, and a resumed run that repeats itself."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.parts.nets import import_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return import_example("train_segmentation")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(0, 256, (5, 7, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((70, 50), Image.Resampling.NEAREST)
            picture.save(folder / part / "images" / f"{i}.png")
            label = np.asarray(picture)[..., 0] // 22
            Image.fromarray(label.astype(np.uint8)).save(folder / part / "labels" / f"{i}.png")
    return folder


def options(
    data: Path, out: Path, *, model: str = "unet-mobilenetv2", resume: bool = False
) -> Namespace:
    return Namespace(
        data=data, out=out, model=model, encoder_weights=None, epochs=2, batch=2,
        crop="32x48", lr=1e-3, seed=3, void=11, resume=resume,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["unet-mobilenetv2", "deeplabv3-mobilenetv2", "fcn-mobilenetv2"])
def test_a_resumed_run_repeats_an_unbroken_one(
    model: str, example: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.train(options(data, tmp_path / "whole", model=model))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example, "plot", interrupt)
        example.train(options(data, tmp_path / "broken", model=model))
    assert len((tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()) == 1
    example.train(options(data, tmp_path / "broken", model=model, resume=True))
    whole, broken = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor, broken[name], err_msg=name)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(0 <= row["miou"] <= 1 for row in rows)
    with Image.open(tmp_path / "whole" / "curve.png") as curve:
        assert curve.width > 400


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_missing_labels_are_named(example: ModuleType, data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "lonely.png").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"lonely\.png"):
        example.pairs(tmp_path)


def test_encoder_weights_need_their_encoder(
    example: ModuleType, data: Path, tmp_path: Path
) -> None:
    arguments = options(data, tmp_path, model="unet")
    arguments.encoder_weights = tmp_path / "w.pth"
    with pytest.raises(SystemExit, match="unet has no MobileNetV2"):
        example.train(arguments)
