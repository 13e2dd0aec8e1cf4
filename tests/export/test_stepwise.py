"""A captioner that streams tokens: built in two stages, loaded, and used wrongly."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevision
from edgevision.errors import (
    BundleFormatError,
    ClosedError,
    EngineLoadError,
    FrameError,
    StaleViewError,
)
from edgevision.export import Captioner
from edgevision.runtime.verify import verify
from edgevision.tasks.caption import TASK
from tests.export.captions import MAX_LENGTH, SIZE, WORDS, greedy, squares, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squares")
    (path / "images").mkdir()
    said = []
    for i in range(20):
        frame, words = squares(7000 + i)
        Image.fromarray(frame).save(path / "images" / f"{i}.png")
        said.append({"image_id": i, "caption": " ".join(WORDS[word] for word in words)})
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(20)]
    (path / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    return path


@pytest.fixture(scope="module")
def summary(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    net = Captioner(
        trained("gru", attention=True), WORDS, size=SIZE, max_length=MAX_LENGTH, form="step"
    )
    out = tmp_path_factory.mktemp("bundle") / "say.ev"
    return edgevision.build(net, out, precision="int8", calibration=folder, evaluate=folder)


def test_words_are_those_of_pytorch(tmp_path: Path) -> None:
    for attention in (True, False):
        net = trained("transformer", attention=attention)
        adapter = Captioner(net, WORDS, size=SIZE, max_length=MAX_LENGTH, form="step")
        edgevision.build(adapter, tmp_path / "say.ev")
        with edgevision.load_streaming(tmp_path / "say.ev") as model:
            for index in range(200):
                frame = squares(index)[0]
                tokens, score, looks = greedy(net, frame)
                words = list(model.words(frame))
                assert [word.token for word in words] == tokens
                assert [word.text for word in words] == [WORDS[token] for token in tokens]
                whole = model(frame)
                assert whole.tokens.tolist() == tokens
                assert whole.scores[0] == pytest.approx(score, abs=1e-4)
                for word, look in zip(words, looks, strict=False):
                    np.testing.assert_allclose(word.attention, look, atol=1e-5)
                assert (whole.attention is not None) == attention


def test_both_stages_are_proven_and_the_whole_is_scored(summary: Any, folder: Path) -> None:
    assert [stage.name for stage in summary.bundle.manifest.stages] == ["encode", "step"]
    scores = {score.form: score.figures() for score in summary.scores}
    assert list(scores) == ["torch", "fp32", "fp16", "int8", "int8-host"]
    assert scores["torch"]["BLEU-4"] > 0.95
    assert scores["fp32"]["same as reference"] == 1.0
    assert scores["torch"]["BLEU-4"] - scores["int8-host"]["BLEU-4"] <= 0.05
    assert {report.name.split("/")[0] for report in summary.parity} >= {"fp32", "encode", "step"}
    assert all(report.passed for report in verify(summary.bundle))
    layers = json.loads(summary.bundle.read("reports/layers.json"))["int8"]
    assert len(layers) >= 5
    assert {name.partition("/")[0] for name in layers} == {"encode", "step"}


def test_each_stage_says_what_it_was_calibrated_on(summary: Any) -> None:
    told = summary.bundle.manifest.provenance
    assert told["encode/calibration_count"] == "20"
    assert int(told["step/calibration_count"]) > 20, "every step of every caption"
    assert told["encode/calibration_method"] == told["step/calibration_method"] == "auto"
    assert told["encode/calibration_sha256"] != told["step/calibration_sha256"]
    assert "calibration_count" not in told


def test_a_caption_that_was_left_ends_with_an_error(summary: Any) -> None:
    frame = next(squares(i)[0] for i in range(50) if len(squares(i)[1]) == 7)
    with edgevision.load_streaming(summary.bundle) as model:
        words = model.words(frame)
        next(words)
        again = model.words(frame)
        with pytest.raises(StaleViewError, match="another frame was begun"):
            next(words)
        assert len(list(again)) == 7
        late = model.words(frame)
        model.close()
        with pytest.raises(ClosedError, match="the model is closed"):
            next(late)
        with pytest.raises(ClosedError):
            model(frame)
        model.close()


def test_threads_take_turns(summary: Any) -> None:
    frames = [squares(i)[0] for i in range(16)]
    with edgevision.load_streaming(summary.bundle) as model:
        wanted = [model(frame).text for frame in frames]
        wrong: list[str] = []

        def run(frame: Any, text: str) -> None:
            for _ in range(10):
                found = model(frame).text
                if found != text:
                    wrong.append(found)

        threads = [
            threading.Thread(target=run, args=pair) for pair in zip(frames, wanted, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_frames_of_another_size_are_refused(summary: Any) -> None:
    with edgevision.load_streaming(summary.bundle) as model:
        with pytest.raises(FrameError, match="expected"):
            model(np.zeros((4, 4, 3), np.uint8))
        assert "host-cpu" in model.explain()


def test_each_kind_of_bundle_says_how_it_is_opened(summary: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match=r"2 stages.*edgevision\.load_streaming"):
        edgevision.load(summary.bundle)
    whole = Captioner(trained("gru", attention=False), WORDS, size=SIZE, max_length=MAX_LENGTH)
    edgevision.build(whole, tmp_path / "whole.ev")
    with pytest.raises(BundleFormatError, match=r"does not stream tokens: .*edgevision\.load"):
        edgevision.load_streaming(tmp_path / "whole.ev")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"end": 99}, "end is 99"),
        ({"end": "x"}, "end is 'x'"),
        ({"max_length": -1}, "max_length is -1"),
        ({"max_length": 10**9}, "max_length is 1000000000"),
        ({"max_length": True}, "max_length is True"),
        ({"vocabulary": None}, "expected a vocabulary"),
    ],
)
def test_settings_of_a_changed_bundle(summary: Any, settings: dict[str, Any], message: str) -> None:
    from dataclasses import replace

    manifest = summary.bundle.manifest
    changed = replace(manifest, settings={**manifest.settings, **settings})
    with pytest.raises(BundleFormatError, match=message):
        TASK.streaming(changed, summary.bundle.read)


def test_beams_and_batches_are_for_whole_graphs() -> None:
    net = trained("gru", attention=True)
    for options in ({"beams": 2}, {"cameras": 2}):
        with pytest.raises(ValueError, match="'step' takes one beam and one frame"):
            Captioner(net, WORDS, size=SIZE, form="step", **options)  # type: ignore[arg-type]
