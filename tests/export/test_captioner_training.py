"""The captioner's example on a handful of pictures: its files, COCO's captions, a resumed run."""

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
    return import_example("train_captioner")


def options(out: Path, *, resume: bool = False, decoder: str = "lstm") -> Namespace:
    return Namespace(
        out=out, encoder_weights=None, decoder=decoder, epochs=2, steps=1, batch=2, lr=1e-3,
        seed=3, scored=2, resume=resume,
    )  # fmt: skip


def test_a_resumed_run_repeats_an_unbroken_one(
    example: ModuleType, digits_and_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = example.Scenes(digits_and_photos / "digits.npz", digits_and_photos, 3)
    example.train(scenes, options(tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example, "plot", interrupt)
        example.train(scenes, options(tmp_path / "broken"))
    example.train(scenes, options(tmp_path / "broken", resume=True))
    whole, broken = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")
    )
    for name, values in whole.items():
        np.testing.assert_array_equal(values, broken[name], err_msg=name)
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(np.isfinite(row["loss"]) for row in rows)
    with Image.open(tmp_path / "whole" / "captions.png") as picture:
        assert picture.size == (4 * 320, 3 * 296)
    assert json.loads((tmp_path / "whole" / "vocabulary.json").read_text()) == scenes.vocabulary


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_it_learns_from_captions_as_coco_has_them(
    example: ModuleType, digits_and_photos: Path, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.json"
    images = [{"id": i, "file_name": f"{i % 5}.jpg"} for i in range(12)]
    said = [
        {"image_id": i, "caption": text}
        for i in range(12)
        for text in ("A red bus, parked.", f"one bus number{i}")
    ]
    captions.write_text(json.dumps({"images": images, "annotations": said}))
    photos = example.CocoCaptions(captions, digits_and_photos, (64, 96), 0)
    # A word that few people used is unknown to the net.
    known = [",", "a", "bus", "one", "parked", "red"]
    assert photos.vocabulary == ["<start>", "<end>", "<unknown>", *known]
    assert photos.unseen_count == 2
    frame, words, where = photos.example(5)
    assert (frame.shape, frame.dtype) == ((64, 96, 3), np.uint8)
    assert words in (["a", "red", "bus", ",", "parked"], ["one", "bus", "<unknown>"])
    assert where.shape == (64, 96)
    assert not where.any()
    example.train(photos, options(tmp_path / "run", decoder="gru"))
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_too_few_pictures_are_no_data(example: ModuleType, tmp_path: Path) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(SystemExit, match="0 pictures with captions, expected 10 or more"):
        example.CocoCaptions(captions, tmp_path, (64, 96), 0)


def test_what_is_where_is_asked_for_there(example: ModuleType, digits_and_photos: Path) -> None:
    scenes = example.Scenes(digits_and_photos / "digits.npz", digits_and_photos, 3)
    _, words, where = scenes.example(0)
    known = {scenes.vocabulary[k] for k in np.unique(where) if k}
    assert known
    assert known <= set(words)
    torch.manual_seed(0)
    spotter = torch.nn.Linear(4, len(scenes.vocabulary))
    places = torch.zeros(1, 8, 10, 4)
    wanted = torch.tensor([[3, 1]])
    somewhere = example.words_seen(spotter, places, wanted, torch.from_numpy(where[None]).long())
    nowhere = example.words_seen(spotter, places, wanted, torch.zeros(1, 128, 160).long())
    # One of 31 words at each known place, against each of 31 words somewhere.
    assert 2.5 < somewhere.item() < 4.5
    assert 15 < nowhere.item() < 30


def test_words_beyond_the_longest_caption_are_left_out(example: ModuleType) -> None:
    vocabulary = ["<start>", "<end>", "a"]
    given, wanted = example.tokens_of([["a"] * 30, ["a"]], vocabulary)
    assert given.shape == (2, example.MAX_LENGTH + 1)
    assert given[0].tolist() == [0] + [2] * example.MAX_LENGTH
    assert wanted[1, :3].tolist() == [2, 1, -100]
