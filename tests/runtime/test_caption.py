"""Captions on the run side: text, pictures, and bundles that are not what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.bundle.manifest import FileEntry, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FileReadError, FrameError
from edgevision.metrics.caption import CaptionMetric
from edgevision.metrics.coco import read_captions
from edgevision.metrics.metric import score_folder
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.caption import TASK, CaptionDecoder, CaptionResult
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.pixel_formats import packed
from edgevision.tasks.timings import Timings
from edgevision.tasks.vocabulary import MAX_BYTES, WordList

WORDS = WordList(("<start>", "<end>", "a", "dog", "cat", ","))
SIZE = (30, 40)
DECODER = CaptionDecoder(WORDS, CameraFrame("frame", packed("rgb", SIZE)))
TIMES = Timings(0.1, 2.0, 0.3)
SETTINGS: dict[str, Any] = {
    "channel_order": "rgb",
    "vocabulary": {"kind": "words", "path": "task/vocabulary.json", "size": 6},
}
FRAME = TensorSpec("frame", DType.UINT8, (1, *SIZE, 3))
OUTPUTS = (
    TensorSpec("tokens", DType.INT32, (1, 2, 4)),
    TensorSpec("lengths", DType.INT32, (1, 2)),
    TensorSpec("scores", DType.FLOAT32, (1, 2)),
    TensorSpec("attention", DType.FLOAT32, (1, 2, 4, 3, 4)),
)


def outputs(**changes: Any) -> dict[str, Any]:
    attention = np.random.default_rng(0).random((1, 2, 4, 3, 4)).astype(np.float32)
    found = {
        "tokens": np.array([[[2, 3, 1, 1], [2, 4, 5, 1]]], np.int32),
        "lengths": np.array([[2, 3]], np.int32),
        "scores": np.array([[-0.5, -1.5]], np.float32),
        "attention": attention,
    }
    return {**found, **changes}


def stage(outputs: tuple[TensorSpec, ...] = OUTPUTS, frame: TensorSpec = FRAME) -> Stage:
    tolerances = {spec.name: Tolerance(0, 0) for spec in outputs}
    return Stage("main", "model.onnx", (frame,), outputs, tolerances)


def test_the_best_caption_comes_with_its_rivals() -> None:
    found = DECODER.decode(outputs(), TIMES)
    assert (found.text, str(found)) == ("a dog", "a dog")
    assert found.hypotheses == ("a dog", "a cat,")
    assert found.tokens.tolist() == [2, 3]
    assert found.words == ("a", "dog")
    np.testing.assert_array_equal(found.scores, np.float32([-0.5, -1.5]))
    assert found.attention is not None
    np.testing.assert_array_equal(found.attention, outputs()["attention"][0, 0, :2])


def test_a_net_may_say_nothing_and_not_attend() -> None:
    silent = outputs(lengths=np.zeros((1, 2), np.int32))
    del silent["attention"]
    found = DECODER.decode(silent, TIMES)
    assert (found.text, found.words, found.attention) == ("", (), None)
    assert found.overlay(np.zeros((*SIZE, 3), np.uint8)).shape[2] == 3


def test_the_picture_is_lit_where_the_net_looked() -> None:
    attention = np.zeros((1, 2, 4, 3, 4), np.float32)
    attention[0, 0, 0, 0, 0] = 1  # the first word: up left
    attention[0, 0, 1, 2, 3] = 1  # the second: down right
    picture = DECODER.decode(outputs(attention=attention), TIMES).overlay(
        np.full((*SIZE, 3), 200, np.uint8)
    )
    height, width = 180, 240
    first = picture[22 : 22 + height, width : 2 * width].mean(2)
    second = picture[22 : 22 + height, 2 * width :].mean(2)
    assert first[20, 20] > 150
    assert first[-20, -20] < 60
    assert second[-20, -20] > 150
    assert second[20, 20] < 60


@pytest.mark.parametrize("shape", [(30, 41, 3), (30, 40), (30, 40, 4)])
def test_pictures_need_the_frame_that_was_run(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match=r"expected the frame that was run, uint8\[30, 40, 3\]"):
        DECODER.decode(outputs(), TIMES).overlay(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": np.array([[[2, 6, 1, 1], [2, 4, 1, 1]]], np.int32)},
        {"tokens": np.array([[[2, -1, 1, 1], [2, 4, 1, 1]]], np.int32)},
        {"lengths": np.array([[5, 1]], np.int32)},
        {"lengths": np.array([[-1, 1]], np.int32)},
    ],
)
def test_what_no_vocabulary_has_is_the_engines_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match="Run `edgevision verify` on the bundle"):
        DECODER.decode(outputs(**changes), TIMES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": None}, "expected a vocabulary's file, got None"),
        ({"vocabulary": {"path": 3}}, "expected a vocabulary's file"),
        ({"vocabulary": SETTINGS["vocabulary"] | {"path": "x"}}, "no file 'x' in the bundle"),
        ({"vocabulary": SETTINGS["vocabulary"] | {"size": 7}}, "has 6 words, the net 7"),
        ({"vocabulary": SETTINGS["vocabulary"] | {"kind": "pickle"}}, "its kind is 'pickle'"),
        ({"channel_order": "grey"}, "channel_order is 'grey'"),
    ],
)
def test_settings_that_are_not_the_tasks(settings: dict[str, Any], message: str) -> None:
    files = {"task/vocabulary.json": WORDS.to_bytes()}
    with pytest.raises(BundleFormatError, match=message):
        TASK.decoder(SETTINGS | settings, (stage(),), files.__getitem__)


@pytest.mark.parametrize(
    "wrong",
    [
        stage(OUTPUTS[:2]),
        stage((*OUTPUTS[:2], TensorSpec("scores", DType.FLOAT32, (1, 3)), OUTPUTS[3])),
        stage((TensorSpec("tokens", DType.INT64, (1, 2, 4)), *OUTPUTS[1:])),
        stage((TensorSpec("tokens", DType.INT32, (1, 4)), *OUTPUTS[1:])),
        stage((*OUTPUTS[:3], TensorSpec("attention", DType.FLOAT32, (1, 2, 5, 3, 4)))),
        stage(frame=TensorSpec("frame", DType.FLOAT32, (1, *SIZE, 3))),
        stage(frame=TensorSpec("frame", DType.UINT8, (4, *SIZE, 3))),
    ],
)
def test_graphs_that_are_not_the_tasks(wrong: Stage) -> None:
    with pytest.raises(BundleFormatError, match="task caption: expected uint8"):
        TASK.decoder(SETTINGS, (wrong,), lambda _: WORDS.to_bytes())


def test_a_huge_vocabulary_is_not_even_read() -> None:
    entry = FileEntry("task/vocabulary.json", MAX_BYTES + 1, "0" * 64)
    manifest = Manifest("m", "caption", "fp32", SETTINGS, (stage(),), (entry,))
    with pytest.raises(BundleFormatError, match=f"at most {MAX_BYTES} are read"):
        bundle_decoder(manifest, never)


def never(path: str) -> bytes:
    raise AssertionError(f"{path} was read")


def folder(path: Path, annotations: list[Any], **changes: Any) -> Path:
    (path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30)).save(path / "images" / f"{name}.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    content = {"images": images, "annotations": annotations} | changes
    (path / "captions.json").write_text(json.dumps(content))
    return path


SAID = [{"image_id": 1, "caption": "a dog"}, {"image_id": 1, "caption": "one dog"}]


def test_pictures_nobody_speaks_of_are_left_out(tmp_path: Path) -> None:
    ((path, captions),) = read_captions(folder(tmp_path, SAID))
    assert (path.name, captions) == ("a.png", ["a dog", "one dog"])


def test_captions_are_scored_against_what_people_said(tmp_path: Path) -> None:
    data = folder(tmp_path, [*SAID, {"image_id": 2, "caption": "a cat"}])
    right, wrong = (DECODER.decode(outputs(tokens=t), TIMES) for t in (
        np.array([[[2, 3, 1, 1]] * 2], np.int32), np.array([[[2, 4, 1, 1]] * 2], np.int32)
    ))  # fmt: skip
    forms = {"torch": lambda _: right, "int8": lambda _: wrong}
    scores = score_folder(CaptionMetric(), forms, data, SIZE)
    assert [score.form for score in scores] == ["torch", "int8"]
    assert [score.agreement for score in scores] == [1.0, 0.0]
    # "a dog" of a dog and of a cat: three of four words are right.
    assert scores[0].figures()["BLEU-1"] == pytest.approx(0.75)
    assert scores[0].per_class() == ()


@pytest.mark.parametrize(
    ("annotations", "changes", "message"),
    [
        ([], {}, "2 pictures and no caption"),
        ([{"image_id": 3, "caption": "x"}], {}, "2 pictures and no caption"),
        ([{"image_id": 1}], {}, "an annotation of 1 has no text 'caption'"),
        ("x", {}, "image_id None, expected a whole number"),
        (SAID, {"images": [{"id": 1, "file_name": "../a.png"}, {"id": 2}]}, "leads out of the f"),
        ([{"image_id": 1, "caption": "x"}], {"images": [{"id": 1, "file_name": "c.png"}]},
         "1 of 1 pictures are missing, the first 'images/c.png'"),
    ],
)  # fmt: skip
def test_folders_that_hold_no_captions(
    tmp_path: Path, annotations: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileReadError, match=message):
        read_captions(folder(tmp_path, annotations, **changes))


def test_a_missing_file_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=r"images/ and COCO.s captions\.json"):
        read_captions(tmp_path)


def test_results_can_be_kept(tmp_path: Path) -> None:
    """What a caller keeps is the caller's own, whatever the engine writes next."""
    given = outputs()
    found = DECODER.decode(given, TIMES)
    kept = replace(found)
    given["tokens"][:] = 0
    assert isinstance(kept, CaptionResult)
    assert kept.tokens.tolist() == [2, 3]
