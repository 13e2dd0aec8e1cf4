"""One net with three heads: one backbone run, and each head what its own export says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevision
from edgevision.errors import BundleFormatError, ExportError
from edgevision.export import Camera, DepthHead, DetectionHead, MultiTask, SemanticHead
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.pixel_photos import frame_from_photo
from edgevision.tasks.task import get_task
from tests.parts.nets import PHOTOS, run

SIZE, FRAME = (32, 48), (60, 80)
CAMERA = Camera(size=FRAME, pixel_format="nv12", fit="letterbox")


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.road, self.depth = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 1, 1)
        self.boxes = nn.Conv2d(8, 7, 4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x).relu()
        raw = self.boxes(y).flatten(2)
        places = torch.arange(raw.shape[-1], dtype=raw.dtype)
        centre = torch.stack([places % 6 * 8 + 4, (places / 6).floor() * 8 + 4])
        centre = centre.expand(raw.shape[0], -1, -1)  # len() would fix the number of frames
        boxes = torch.cat([centre, 8 + raw[:, 2:4].tanh(), raw[:, 4:].sigmoid()], 1)
        return {"road": self.road(y), "depth": self.depth(y).exp(), "boxes": boxes}


HEADS = {
    "road": SemanticHead(["road", "sky"]),
    "depth": DepthHead(scale=2.0, max_m=50.0),
    "boxes": DetectionHead(["car", "dog", "tree"], score=0.2),
}


@pytest.fixture(scope="module")
def adapter() -> MultiTask:
    return MultiTask(Heads(), size=SIZE, heads=HEADS, camera=CAMERA)


def test_the_backbone_runs_once_and_each_head_says_what_it_says_alone(adapter: MultiTask) -> None:
    graph = adapter.to_onnx()
    assert sum(node.op_type == "Conv" for node in graph.graph.node) == 4
    layout = adapter._camera.layout
    photo = resize(read_image(sorted(PHOTOS.glob("*.jpg"))[0]), FRAME)
    feed = {"frame": frame_from_photo(photo, layout)[None]}
    found = run(graph, feed)
    for name, head in adapter.heads.items():
        for output, values in run(head.to_onnx(), feed).items():
            there = found[f"{name}.{head.task}.{output}"]
            np.testing.assert_allclose(there, values, rtol=1e-5, atol=1e-4)


def test_one_call_gives_a_result_of_each_head(adapter: MultiTask, tmp_path: Path) -> None:
    summary = edgevision.build(
        adapter, tmp_path / "m.ev", precision="fp16", calibration=PHOTOS,
        targets=["host-cpu", "rtx"],
    )  # fmt: skip
    photo = resize(read_image(sorted(PHOTOS.glob("*.jpg"))[0]), FRAME)
    with edgevision.load(summary.bundle) as model:
        result = model(model.decoder.camera.fit(photo))
    assert list(result) == ["road", "depth", "boxes"]
    assert result["road"].mask.shape == result["depth"].depth.shape == FRAME
    assert len(result["boxes"]) > 0
    assert set(result.pictures(photo)) >= {".road.classes.png", ".boxes.overlay.jpg"}
    assert list(get_task("multitask").masks(result)) == ["road.classes", "depth.depth_mm"]
    assert result.summary().text.startswith("road: ")
    assert {report.name.split("/")[1] for report in summary.parity} >= set(HEADS)
    manifest = summary.bundle.manifest
    for broken in (
        {**manifest.settings, "heads": {}},
        {**manifest.settings, "heads": {"road": {"task": "depth", "settings": {}}}},
        {**manifest.settings, "heads": 3},
    ):
        with pytest.raises(BundleFormatError, match="task multitask"):
            get_task("multitask").decoder(broken, manifest.stages, bytes)


def test_heads_that_are_not_there_are_named() -> None:
    with pytest.raises(ExportError, match="gives road, depth, boxes, and no 'lane'"):
        MultiTask(Heads(), size=SIZE, heads={"lane": SemanticHead(["a", "b"])})
    with pytest.raises(ValueError, match="heads: got"):
        MultiTask(Heads(), size=SIZE, heads={"a.b": SemanticHead(["a", "b"])})
