"""The digit examples on made-up pictures: their files, and a resumed run that repeats itself."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from edgevision.models.digit_classifier import DigitClassifier
from edgevision.models.gan import digit_generator
from tests.parts.nets import import_example


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bars at ten heights, each height a class."""
    labels = np.arange(2200, dtype=np.uint8) % 10
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (2200, 28, 28), np.uint8)
    for label in range(10):
        images[labels == label, 4 + 2 * label : 6 + 2 * label, 4:24] = 255
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=images, labels=labels)
    return path


def options(digits: Path, out: Path, *, epochs: int, resume: bool = False) -> Namespace:
    return Namespace(digits=digits, out=out, epochs=epochs, seed=3, resume=resume)


def test_a_resumed_gan_repeats_an_unbroken_one(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = import_example("train_gan")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    example.train(options(digits, whole, epochs=6))
    told = capsys.readouterr().out
    assert "untrained discriminator finds it real with probability 0." in told
    assert "epoch 6/6" in told
    example.train(options(digits, broken, epochs=2))
    example.train(options(digits, broken, epochs=6, resume=True))
    one, other = (load_file(run / "model.safetensors") for run in (whole, broken))
    assert one.keys() == digit_generator().state_dict().keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name], err_msg=name)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert all(row["seconds"] > 0 and 0 <= row["verdict_real"] <= 1 for row in rows)
    with Image.open(whole / "samples.gif") as animation:
        assert animation.n_frames == 7
    grids = [np.asarray(Image.open(path)) for path in sorted(whole.glob("epoch-*.png"))]
    assert len(grids) == 6
    assert all(grid.shape == (224, 224) for grid in grids)
    assert not np.array_equal(grids[0], np.asarray(Image.open(whole / "untrained.png")))
    np.testing.assert_array_equal(grids[-1], np.asarray(Image.open(whole / "final.png")))
    assert (whole / "losses.png").stat().st_size > 1000
    assert not list(tmp_path.glob("**/*.partial"))


def test_another_seed_trains_another_gan(digits: Path, tmp_path: Path) -> None:
    example = import_example("train_gan")
    for seed in (0, 1):
        run = options(digits, tmp_path / str(seed), epochs=1)
        run.seed = seed
        example.train(run)
    one, other = (load_file(tmp_path / seed / "model.safetensors") for seed in ("0", "1"))
    assert np.abs(one["project.weight"] - other["project.weight"]).max() > 1e-3


def test_a_classifier_learns_and_its_accuracy_is_of_unseen_digits(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = import_example("train_digit_classifier")
    example.train(options(digits, tmp_path, epochs=8))
    assert "on 2000 digits never seen" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    model = DigitClassifier().eval()
    state = load_file(tmp_path / "model.safetensors")
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    images, labels = example.read_digits(digits)
    assert rows[-1]["accuracy"] == pytest.approx(
        example.accuracy(model, images[-2000:], labels[-2000:])
    )


@pytest.mark.parametrize("name", ["train_gan", "train_digit_classifier"])
def test_a_file_of_other_images_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, images=np.zeros((9, 32, 32), np.uint8), labels=np.zeros(9, np.uint8))
    with pytest.raises(SystemExit, match=r"\[9, 32, 32\].*expected"):
        import_example(name).read_digits(path)
