"""Detectors with raw boxes and with queries, against greedy suppression in plain Python."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import edgevision
from edgevision.errors import ExportError
from edgevision.export import Camera, Detection
from edgevision.tasks.frames import read_image, resize
from tests.parts.nets import PHOTOS, run

CLASSES = ("car", "person", "dog")


class Grid(nn.Module):
    """A box around each cell of a grid: what a YOLO head gives once its anchors are decoded."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.kind = nn.Conv2d(3, 2 * (4 + len(CLASSES)), 8, 8), kind
        with torch.no_grad():
            self.conv.weight.mul_(2)

    def forward(self, x: Tensor) -> object:
        y = self.conv(x)
        rows, columns = y.shape[-2:]
        y = y.reshape(y.shape[0], 2, 4 + len(CLASSES), rows, columns)
        place = torch.stack(
            torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")[::-1]
        )
        centre = (place + 0.5 + y[:, :, :2].tanh()) * 8
        side = 12 + 10 * y[:, :, 2:4].tanh()
        boxes = torch.cat([centre, side], 2).permute(0, 1, 3, 4, 2).flatten(1, 3)
        scores = y[:, :, 4:].permute(0, 1, 3, 4, 2).flatten(1, 3)
        if self.kind == "tensor":
            return torch.cat([boxes, scores.sigmoid()], -1).transpose(1, 2)
        if self.kind == "pair":
            corners = torch.cat(
                [boxes[..., :2] - side_of(boxes), boxes[..., :2] + side_of(boxes)], -1
            )
            return corners, scores.sigmoid()
        shares = boxes / torch.tensor([columns, rows, columns, rows]) / 8
        if self.kind == "softmax":
            scores = torch.cat([scores, torch.zeros_like(scores[..., :1])], -1)
        return SimpleNamespace(logits=scores, pred_boxes=shares)


def side_of(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] / 2


def greedy(
    boxes: np.ndarray, scores: np.ndarray, score: float, overlap: float | None, count: int
) -> list[tuple[int, float, list[float]]]:
    """Return (label, score, box) of what is kept, best first; each class by itself."""
    found = sorted(
        ((float(s), label, place) for (place, label), s in np.ndenumerate(scores) if s > score),
        reverse=True,
    )
    kept: list[tuple[int, float, list[float]]] = []
    for value, label, place in found:
        box = boxes[place].tolist()
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        if overlap is not None and any(
            label == other and _iou(box, there) > overlap for other, _, there in kept
        ):
            continue
        kept.append((label, value, box))
    return kept[:count]


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("tensor", (96, 64)), ("pair", (64, 128)), ("sigmoid", (64, 96)), ("softmax", (64, 64))],
)
def test_the_graph_finds_what_greedy_suppression_finds(kind: str, size: tuple[int, int]) -> None:
    net = Grid(kind)
    adapter = Detection(
        net, size=size, classes=CLASSES, corners="xyxy" if kind == "pair" else "cxcywh"
    )
    graph = adapter.to_onnx()
    assert {n.op_type for n in graph.graph.node if "frame" in n.input} == {"Cast"}
    photo = resize(read_image(sorted(PHOTOS.glob("*.jpg"))[0]), size)
    feed = {"frame": photo[None]}
    wanted, found = adapter.reference(feed), run(graph, feed)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-3, err_msg=name)
    with torch.no_grad():
        boxes, scores, _ = adapter.fused.raw(torch.from_numpy(photo.copy())[None])
    clipped = boxes[0].numpy().clip(0, [size[1], size[0]] * 2)
    overlap = None if kind in ("sigmoid", "softmax") else 0.5
    expected = greedy(clipped, scores[0].numpy(), 0.05, overlap, 100)
    count = int(found["count"][0])
    assert count == len(expected) > 20
    assert found["converged"][0] == 1
    assert (found["labels"][0, :count] - 1).tolist() == [label for label, _, _ in expected]
    np.testing.assert_allclose(found["scores"][0, :count], [s for _, s, _ in expected], atol=1e-5)
    np.testing.assert_allclose(found["boxes"][0, :count], [b for *_, b in expected], atol=1e-2)
    assert not found["boxes"][0, count:].any()


def test_a_detector_of_a_camera_becomes_a_bundle(tmp_path: Path) -> None:
    camera = Camera(size=(120, 160), pixel_format="nv12", fit="letterbox")
    adapter = Detection(Grid(), size=(64, 64), classes=CLASSES, camera=camera, score=0.3)
    folder = tmp_path / "val"
    (folder / "images").mkdir(parents=True)
    photo = resize(read_image(sorted(PHOTOS.glob("*.jpg"))[0]), (120, 160))
    Image.fromarray(photo).save(folder / "images" / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "iscrowd": 0,
           "area": 1600, "segmentation": [[0, 0, 40, 0, 40, 40, 0, 40]]}  # fmt: skip
    labels = {
        "images": [{"id": 1, "file_name": "a.png", "width": 160, "height": 120}],
        "annotations": [box],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    (folder / "instances.json").write_text(json.dumps(labels))
    summary = edgevision.build(
        adapter, tmp_path / "d.ev", precision="fp16", evaluate=folder, targets=["host-cpu", "rtx"]
    )
    assert [score.form for score in summary.scores] == ["torch", "fp32", "fp16"]
    with edgevision.load(summary.bundle) as model:
        result = model(model.decoder.camera.fit(photo))
    assert len(result) > 3
    assert result.is_exact
    assert result.is_complete
    assert result.boxes.min() >= 0
    assert result.boxes[:, [0, 2]].max() <= 160
    assert result.boxes[:, [1, 3]].max() <= 120
    assert result.overlay(photo).shape == photo.shape
    assert len(result.above(0.99)) <= len(result)
    assert result.summary().fields["objects"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corners": "xywh"}, "corners: got 'xywh'"),
        ({"score": 1.5}, "score: got 1.5"),
        ({"overlap": 1.1}, "overlap: got 1.1, expected a share, or 1 to keep all"),
        ({"detections": 0}, "detections: got 0, expected 1 to 1000"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detection(Grid(), size=(64, 64), classes=CLASSES, **options)  # type: ignore[arg-type]


def test_modules_that_are_no_detectors_are_told_what_is_expected() -> None:
    with pytest.raises(ExportError, match=r"expected \[N, anchors, 4\] and \[N, anchors, 2\]"):
        Detection(Grid(), size=(64, 64), classes=CLASSES[:2])
    with pytest.raises(ExportError, match="a tuple \\(boxes, scores\\), or an object with logits"):
        Detection(nn.Conv2d(3, 3, 1), size=(64, 64), classes=CLASSES)
