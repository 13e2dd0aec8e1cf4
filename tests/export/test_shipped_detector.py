"""The shipped Mask R-CNN: its scenes, its bundle, and what comes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgevision
from edgevision.errors import ExportError, FrameError
from edgevision.export import InstanceSegmentation
from edgevision.export.checkpoint import load_weights
from edgevision.export.samples import golden_samples
from edgevision.export.source import resolve
from edgevision.export.zoo import zoo_entry
from edgevision.metrics.coco import read_objects
from edgevision.models.mask_rcnn import maskrcnn_mobilenet_v2
from edgevision.tasks.frames import read_image
from edgevision.tasks.instance import InstanceResult


def test_it_becomes_a_scored_bundle_that_finds_the_digits(tmp_path: Path) -> None:
    scenes = zoo_entry("maskrcnn-digits").samples
    assert scenes is not None
    summary = edgevision.build(
        "maskrcnn-digits", tmp_path / "m.ev", precision="fp16", evaluate=scenes
    )
    assert all(report.passed for report in summary.parity)
    scores = {score.form: score.figures() for score in summary.scores}
    assert list(scores) == ["torch", "fp32", "fp16"]
    assert scores["torch"]["mask AP50"] > 0.6
    assert scores["torch"]["mask AP"] - scores["fp16"]["mask AP"] <= 0.005
    kept = json.loads(summary.bundle.read("reports/layers.json"))["kept_wide"]
    assert sum("GridSample" in name or "grid_sampl" in name for name in kept) >= 2
    assert summary.bundle.read("reports/differences.png").startswith(b"\x89PNG")
    truth = read_objects(scenes, [str(digit) for digit in range(10)])
    with edgevision.load(summary.bundle) as model:
        for index, path in enumerate(truth.images):
            frame = read_image(path)
            result = model(frame)
            assert isinstance(result, InstanceResult)
            assert result.is_exact
            found = set(result.above(0.5).labels.tolist())
            wanted = set(truth.objects(index, frame.shape[:2]).labels.tolist())
            assert len(found & wanted) >= len(wanted) / 2
        assert len(model(np.zeros_like(frame)).above(0.5)) == 0
        with pytest.raises(FrameError, match="expected"):
            model(frame[:-1])


def test_its_own_scenes_prove_it_where_no_folder_is_given() -> None:
    source = resolve("maskrcnn-digits")
    samples, origin = golden_samples(source.adapter, source.samples, None)
    assert (len(samples), origin) == (3, "real")
    for sample in samples:
        assert source.adapter.reference(sample)["scores"].max() > 0.9


def test_frames_without_an_object_prove_nothing(tmp_path: Path) -> None:
    net = maskrcnn_mobilenet_v2(11)
    net.load_state_dict(load_weights(zoo_entry("maskrcnn-digits").weights))
    adapter = InstanceSegmentation(net, size=(128, 160), classes=list("0123456789"))
    with pytest.raises(ExportError, match="finds no object in any sample"):
        edgevision.build(adapter, tmp_path / "m.ev")
    assert not (tmp_path / "m.ev").exists()
