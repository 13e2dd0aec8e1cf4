"""The shipped captioner: its scenes, its bundle, and what comes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgevision
from edgevision.errors import FrameError
from edgevision.export.samples import golden_samples
from edgevision.export.source import resolve
from edgevision.export.zoo import zoo_entry
from edgevision.metrics.coco import read_captions
from edgevision.runtime.files.batch import run_files
from edgevision.tasks.caption import CaptionResult
from edgevision.tasks.frames import read_image


def test_it_becomes_a_scored_bundle_that_says_what_is_there(tmp_path: Path) -> None:
    scenes = zoo_entry("captioner-digits").samples
    assert scenes is not None
    with pytest.warns(UserWarning, match="calibrated on 10 frames"):
        summary = edgevision.build(
            "captioner-digits",
            tmp_path / "say.ev",
            precision="int8",
            calibration=scenes,
            evaluate=scenes,
            # Each of its 51 would be measured at the encoder's end, which takes half a minute.
            keep_fp32=["Conv"],
        )
    assert all(report.passed for report in summary.parity)
    scores = {score.form: score.figures() for score in summary.scores}
    assert list(scores) == ["torch", "fp32", "fp16", "int8", "int8-host"]
    assert scores["torch"]["BLEU-4"] > 0.85
    assert scores["fp32"]["same as reference"] == scores["fp16"]["same as reference"] == 1.0
    layers = json.loads(summary.bundle.read("reports/layers.json"))
    assert any("body/" in name for name in layers["int8"])
    assert any("log_softmax" in name or "LogSoftmax" in name for name in layers["kept_wide"])
    assert summary.bundle.read("reports/differences.png").startswith(b"\x89PNG")
    pictures = read_captions(scenes)
    with edgevision.load(summary.bundle) as model:
        right = 0
        for path, captions in pictures:
            result = model(read_image(path))
            assert isinstance(result, CaptionResult)
            right += result.text in captions
            assert result.attention is not None
            assert result.attention.shape == (len(result.tokens), 8, 10)
            np.testing.assert_allclose(result.attention.sum((1, 2)), 1, atol=1e-2)
        assert right >= len(pictures) - 2
        with pytest.raises(FrameError, match="expected"):
            model(np.zeros((128, 161, 3), np.uint8))
        done = run_files(model, scenes / "images", tmp_path / "said")
    assert len(done.frames) == len(pictures)
    assert done.frames[0].text == done.frames[0].answer["caption"]
    assert (tmp_path / "said" / f"{done.frames[0].name}.overlay.jpg").is_file()


def test_its_own_scenes_prove_it_where_no_folder_is_given() -> None:
    source = resolve("captioner-digits")
    samples, origin = golden_samples(source.adapter, source.samples, None)
    assert (len(samples), origin) == (8, "real")


@pytest.mark.parametrize("options", [{"size": (64, 64)}, {"task": "semantic"}])
def test_it_says_its_size_itself(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"a shipped captioner, which says this|leave out task"):
        resolve("captioner-digits", **options)  # type: ignore[arg-type]
