"""Labels on the run side: words, pictures, pairing, scores of a folder, hostile bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.bundle.forms import FP32, INT8
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FileReadError, FrameError
from edgevision.metrics.classification import ClassificationMetric
from edgevision.metrics.metric import score_folder
from edgevision.tasks.classification import TASK, ClassificationResult, label_distances
from edgevision.tasks.timings import Timings

SIZE = (60, 80)
NAMES = ("cat", "dog", "espresso", "a class with a very long name indeed")
TIMES = Timings(0.1, 2.0, 0.3)
SETTINGS: dict[str, Any] = {"classes": list(NAMES), "channel_order": "rgb"}
FRAME = TensorSpec("frame", DType.UINT8, (1, *SIZE, 3))
OUTPUTS = (TensorSpec("labels", DType.INT32, (1, 2)), TensorSpec("scores", DType.FLOAT32, (1, 2)))


def result(*labels: int, first: float = 0.75) -> ClassificationResult:
    scores = np.array([first, 0.2, 0.03, 0.02][: len(labels)], np.float32)
    return ClassificationResult(np.array(labels, np.int32), scores, NAMES, SIZE, TIMES)


def stage(outputs: tuple[TensorSpec, ...] = OUTPUTS, frame: TensorSpec = FRAME) -> Stage:
    bars = {spec.name: Tolerance() for spec in outputs}
    return Stage("main", "model.onnx", (frame,), outputs, bars)


def arrays(labels: list[list[int]], scores: list[list[float]]) -> dict[str, Any]:
    return {"labels": np.array(labels, np.int32), "scores": np.array(scores, np.float32)}


def test_the_labels_in_words() -> None:
    found = result(2, 0)
    assert str(found) == "espresso"
    assert found.summary().text == "espresso 0.75"
    assert found.summary().fields["labels"] == [
        {"label": "espresso", "score": 0.75},
        {"label": "cat", "score": pytest.approx(0.2)},
    ]


def test_the_labels_are_written_on_the_picture() -> None:
    frame = np.full((*SIZE, 3), 128, np.uint8)
    (picture,) = result(3, 1).pictures(frame).values()
    assert picture.shape == frame.shape
    assert np.any(picture[:20] != 128)
    assert np.all(picture[-20:] == 128)
    with pytest.raises(FrameError, match="expected the frame that was run"):
        result(0).overlay(np.zeros((4, 4, 3), np.uint8))


def test_the_decoder_takes_what_the_engine_gives() -> None:
    decoder = TASK.decoder(SETTINGS, (stage(),), dict[str, bytes]().__getitem__)
    found = decoder.decode(arrays([[1, 0]], [[0.9, 0.1]]), TIMES)
    assert (found.names, found.frame_size) == (("dog", "cat"), SIZE)
    with pytest.raises(FrameError, match=r"labels \[4, 0\], the bundle names 4"):
        decoder.decode(arrays([[4, 0]], [[0.9, 0.1]]), TIMES)


@pytest.mark.parametrize(
    ("settings", "stages", "message"),
    [
        ({"classes": []}, (stage(),), "list of 1 to 65536 class names"),
        ({"classes": ["a", 3]}, (stage(),), "a class has no name"),
        ({"classes": ["a"]}, (stage(),), "at most 1 of them"),
        ({}, (stage(OUTPUTS[:1]),), "expected uint8"),
        ({}, (stage(), stage()), "expected one stage"),
        ({"channel_order": 3}, (stage(),), "channel_order"),
    ],
)
def test_a_bundle_that_is_not_one(
    settings: dict[str, Any], stages: tuple[Stage, ...], message: str
) -> None:
    with pytest.raises(BundleFormatError, match=message):
        TASK.decoder({**SETTINGS, **settings}, stages, dict[str, bytes]().__getitem__)


def test_tied_labels_may_change_places_and_others_may_not() -> None:
    one = arrays([[1, 0], [2, 1], [3, 0]], [[0.5, 0.5], [0.9, 0.1], [0.6, 0.3]])
    other = arrays([[0, 1], [2, 1], [0, 3]], [[0.5001, 0.4999], [0.8, 0.1], [0.5, 0.4]])
    found = label_distances(one, other)
    assert found["labels"].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found["scores"], [1e-4, 0.1, 0], atol=1e-6)


def test_a_graph_is_held_by_its_first_labels() -> None:
    one = arrays([[[1, 0]], [[2, 1]]], [[[0.7, 0.3]], [[0.9, 0.1]]])
    second = arrays([[[1, 3]], [[2, 0]]], [[[0.7, 0.3]], [[0.9, 0.1]]])
    broken = arrays([[[3, 0]], [[3, 1]]], [[[0.7, 0.3]], [[0.9, 0.1]]])
    for form in (FP32, INT8):
        bars = TASK.tolerances(form, one)
        assert all(r.passed for r in TASK.compare(one, second, bars, name="x"))
        assert not all(r.passed for r in TASK.compare(one, broken, bars, name="x"))


def test_the_difference_of_two_answers() -> None:
    frame = np.zeros((*SIZE, 3), np.uint8)
    assert TASK.difference(frame, result(0, 1), result(1, 0))[0] == 1
    apart, picture = TASK.difference(frame, result(0, 1), result(0, 1, first=0.5))
    assert apart == pytest.approx(0.25)
    assert picture.dtype == np.uint8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for shade in range(3):
        picture = Image.fromarray(np.full((*SIZE, 3), shade, np.uint8))
        picture.save(tmp_path / "images" / f"{shade}.png")
    return tmp_path


def by_shade(*labels: list[int]) -> Any:
    return lambda frame: result(*labels[int(frame[0, 0, 0])])


def test_scores_of_a_folder_with_labels(folder: Path) -> None:
    (folder / "labels.csv").write_text("name,label\n0.png,cat\n1.png,dog\n2.png,2\n")
    forms = {"torch": by_shade([0, 1], [0, 1], [2, 0]), "int8": by_shade([0, 1], [2, 3], [2, 0])}
    torch, int8 = score_folder(ClassificationMetric(NAMES), forms, folder, SIZE)
    assert (torch.top1, torch.top5, torch.agreement) == (pytest.approx(2 / 3), None, 1.0)
    assert (int8.top1, int8.agreement) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert torch.figures()["top-1"] == torch.top1
    assert TASK.headline is not None
    assert TASK.headline.name in torch.figures()


def test_a_folder_without_labels_gives_agreement(folder: Path) -> None:
    same = by_shade([0], [1], [2])
    (score,) = score_folder(ClassificationMetric(NAMES), {"torch": same}, folder, SIZE)
    assert (score.top1, score.agreement) == (None, 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,label\n0.png,cat\n", "2 of 3 pictures have no label, the first '1.png'"),
        ("name,label\n0.png,horse\n", "'0.png' has label 'horse', which is not one of"),
        ("file,class\n", "expected name,label"),
        ("", "expected name,label"),
    ],
)
def test_labels_that_do_not_fit(folder: Path, table: str, message: str) -> None:
    (folder / "labels.csv").write_text(table)
    with pytest.raises(FileReadError, match=message):
        score_folder(ClassificationMetric(NAMES), {"torch": by_shade([0])}, folder, SIZE)
