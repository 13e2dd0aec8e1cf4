"""DETR and RT-DETR of Hugging Face transformers as `Detection`: all that they find.

EDGEVISION_TEST_DETECTORS=1 adds two sizes of each, and builds of FP16 and INT8.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevision
from edgevision.export import Detection
from edgevision.tasks.frames import read_image, resize
from tests.export.operators import installed_torchvision
from tests.parts.nets import PHOTOS, run

IS_WHOLE = os.environ.get("EDGEVISION_TEST_DETECTORS", "") == "1"
SIZES = [(192, 256), (256, 256), (320, 192)] if IS_WHOLE else [(192, 256)]
CLASSES, QUERIES = 20, 100


@pytest.fixture
def transformers() -> ModuleType:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        installed_torchvision()  # which transformers imports where it is
    return importlib.import_module("transformers")


def made(transformers: ModuleType, kind: str) -> Any:
    """Return a small net of the family, whose random weights say as much as trained ones do."""
    torch.manual_seed(0)
    body: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48],
                            "depths": [1, 1, 1, 1], "layer_type": "basic"}  # fmt: skip
    small = {"d_model": 32, "num_labels": CLASSES, "num_queries": QUERIES, "decoder_layers": 2,
             "encoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
    if kind == "detr":
        backbone = transformers.ResNetConfig(**body, out_features=["stage4"])
        config = transformers.DetrConfig(
            backbone_config=backbone, encoder_attention_heads=4, decoder_attention_heads=4, **small
        )
        net = transformers.DetrForObjectDetection(config).eval()
    else:
        backbone = transformers.RTDetrResNetConfig(
            **body, out_features=["stage2", "stage3", "stage4"]
        )
        config = transformers.RTDetrConfig(
            backbone_config=backbone, encoder_in_channels=[24, 32, 48], encoder_hidden_dim=32,
            decoder_in_channels=[32] * 3, encoder_attention_heads=4, decoder_attention_heads=4,
            **small,
        )  # fmt: skip
        net = transformers.RTDetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, part in net.named_modules():
            if isinstance(part, nn.Conv2d):
                # As the library draws them nothing is left of the picture: all places of RT-DETR's
                # encoder are one, its best 100 a tie, and which of them is taken is the kernel's.
                nn.init.kaiming_normal_(part.weight)
            if isinstance(part, nn.Linear) and ("class" in name or "score_head" in name):
                part.weight.normal_(0, 0.6)
            elif isinstance(part, nn.Linear) and "bbox" in name:
                part.weight.normal_(0, 0.15)
    return net


def objects(net: Any, kind: str, frame: np.ndarray, adapter: Detection) -> tuple[Tensor, ...]:
    """Return boxes, labels and scores as transformers' own image processors find them."""
    height, width = frame.shape[:2]
    graph: Any = adapter.fused
    with torch.no_grad():
        found = net(graph.front(torch.from_numpy(frame[None].copy())))
    logits = found.logits[0]
    if kind == "detr":
        scores, labels = logits.softmax(-1)[:, :-1].max(-1)
        places = torch.arange(QUERIES)
    else:
        scores, index = logits.sigmoid().flatten().topk(QUERIES)
        labels, places = index % CLASSES, index // CLASSES
    x, y, w, h = found.pred_boxes[0][places].unbind(-1)
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    return boxes * torch.tensor([width, height, width, height]), labels, scores


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["detr", "rtdetr"])
def test_all_queries_are_found(transformers: ModuleType, kind: str, size: tuple[int, int]) -> None:
    net = made(transformers, kind)
    adapter = Detection(net, size=size, classes=[f"c{i}" for i in range(CLASSES)], score=0.0)
    frame = resize(read_image(sorted(PHOTOS.glob("*.jpg"))[1]), size)
    boxes, labels, scores = objects(net, kind, frame, adapter)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([size[1], size[0]] * 2))
    feed = {"frame": frame[None]}
    for answer in (adapter.reference(feed), run(adapter.to_onnx(), feed)):
        found = {name: torch.as_tensor(values[0]) for name, values in answer.items()}
        assert int(found["count"]) == 100
        same = labels[:, None] == found["labels"][None] - 1
        match = (iou(boxes, found["boxes"]) * same).max(1)
        assert match.values.min() > 0.99
        torch.testing.assert_close(found["scores"][match.indices], scores, rtol=0, atol=1e-4)


# Of RT-DETR's random encoder the best 100 places are nearly even, and float16 takes others.
@pytest.mark.filterwarnings("ignore:INT8 was calibrated on 12 frames")
@pytest.mark.parametrize("kind", ["detr"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_they_become_bundles(
    transformers: ModuleType, kind: str, precision: str, tmp_path: Path
) -> None:
    if not IS_WHOLE:
        pytest.skip("takes a minute: EDGEVISION_TEST_DETECTORS=1 runs it")
    adapter = Detection(
        made(transformers, kind), size=SIZES[0], classes=[f"c{i}" for i in range(CLASSES)]
    )
    summary = edgevision.build(
        adapter, tmp_path / "d.ev", precision=precision, calibration=PHOTOS,
        targets=["host-cpu", "rtx"],
    )  # fmt: skip
    assert all(report.passed for report in summary.parity)


def iou(a: Tensor, b: Tensor) -> Tensor:
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)
