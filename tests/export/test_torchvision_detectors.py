"""torchvision's detectors as `Detection`: all that they find, and what is refused.

EDGEVISION_TEST_DETECTORS=1 adds two sizes of each, and all graphs in ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export import Detection
from edgevision.export.adapters.registry import recognised_task
from edgevision.tasks.frames import read_image, resize
from tests.parts.nets import PHOTOS, run

IS_WHOLE = os.environ.get("EDGEVISION_TEST_DETECTORS", "") == "1"
SIZES = [(320, 320), (320, 416), (448, 320)] if IS_WHOLE else [(192, 256)]
KINDS = ("faster", "retinanet", "fcos", "ssd", "ssdlite") if IS_WHOLE else ("retinanet", "ssdlite")
FORBIDDEN = {"NonMaxSuppression", "RoiAlign", "NonZero", "Loop", "If"}
SOFTMAX = ("faster", "ssd", "ssdlite")


def made(torchvision: ModuleType, kind: str, size: tuple[int, int]) -> Any:
    """Return a detector with random weights whose own resizing leaves pictures of `size` alone."""
    detection = torchvision.models.detection
    torch.manual_seed(0)
    plain = {"weights": None, "weights_backbone": None}
    own = {"min_size": min(size), "max_size": max(size)}
    makers = {
        "faster": lambda: detection.fasterrcnn_resnet50_fpn(**plain, **own),
        "retinanet": lambda: detection.retinanet_resnet50_fpn(**plain, **own),
        "fcos": lambda: detection.fcos_resnet50_fpn(**plain, **own),
        "ssd": lambda: detection.ssd300_vgg16(**plain),
        "ssdlite": lambda: detection.ssdlite320_mobilenet_v3_large(**plain, detections_per_img=100),
    }
    net = makers[kind]().eval()
    net.transform.fixed_size = size[::-1] if kind.startswith("ssd") else None
    return net


def settle(net: Any, kind: str, picture: Tensor) -> Any:
    """Spread what random weights say as trained ones do, layer by layer, in one pass."""
    hooks = []
    for name, layer in net.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        spread, shift = None, 0.0
        if "fpn.layer_blocks" in name:
            spread = 1.0
        elif "bbox" in name or "regression_head.module_list" in name:
            # FCOS's distances: one below zero is none, and a box without area counts for nothing.
            spread, shift = 0.3, 2.0 if "bbox_reg" in name and kind == "fcos" else 0.0
        elif "cls" in name or "classification_head.module_list" in name:
            spread = 2.0
        if spread is not None:
            hooks.append(layer.register_forward_hook(scaled(spread, shift)))
    with torch.no_grad():
        net([picture])
    for hook in hooks:
        hook.remove()
    return net


def scaled(spread: float, shift: float) -> Callable[..., Tensor | None]:
    """Return a hook that gives a layer the spread and mean when it is first called."""
    is_done = False

    def scale(part: Any, values: object, out: Tensor) -> Tensor | None:
        nonlocal is_done
        if is_done:
            return None
        is_done = True
        factor, mean = spread / out.std(), out.mean()
        part.weight.mul_(factor)
        bias = torch.zeros(len(part.weight)) if part.bias is None else part.bias
        part.bias = nn.Parameter((bias - mean) * factor + shift)
        return (out - mean) * factor + shift

    return scale


def photo(size: tuple[int, int]) -> np.ndarray:
    return resize(read_image(sorted(PHOTOS.glob("*.jpg"))[1]), size)


def names(kind: str) -> list[str]:
    return [f"c{i}" for i in range(90 if kind in SOFTMAX else 91)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_all_detections_are_torchvision_s(
    torchvision: ModuleType, kind: str, size: tuple[int, int]
) -> None:
    frame = photo(size)
    picture = torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255
    net = settle(made(torchvision, kind, size), kind, picture)
    with torch.no_grad():
        (expected,) = net([picture])
    expected = {name: values[:100] for name, values in expected.items()}
    assert len(expected["scores"]) == 100
    assert recognised_task(net).name == "detection"
    adapter = Detection(net, size=size, classes=names(kind), detections=100)
    feed = {"frame": frame[None]}
    answers = [adapter.reference(feed)]
    if IS_WHOLE and size == SIZES[1]:
        graph = adapter.to_onnx()
        assert not FORBIDDEN & {node.op_type for node in graph.graph.node}
        answers.append(run(graph, feed))
    for answer in answers:
        found = {name: torch.as_tensor(values[0]) for name, values in answer.items()}
        assert (int(found["count"]), int(found["converged"])) == (100, 1)
        overlap = torchvision.ops.box_iou(expected["boxes"], found["boxes"])
        first = 0 if kind in SOFTMAX else 1
        same = expected["labels"][:, None] == found["labels"][None] - first
        best, match = (overlap * same).max(1)
        assert best.min() > 0.99
        assert len(set(match.tolist())) == 100
        torch.testing.assert_close(found["scores"][match], expected["scores"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (200, 256)}, r"divisible by 32; take \(224, 256\)"),
        ({"mean": (0, 0, 0)}, "mean: not used with torchvision's detectors"),
        ({"classes": ["a"]}, r"scores \[1, .*, 91\], expected .* 1\] for the 1 classes named"),
    ],
)
def test_what_does_not_fit_is_refused(
    torchvision: ModuleType, options: dict[str, Any], message: str
) -> None:
    net = made(torchvision, "retinanet", (192, 256))
    with pytest.raises((ValueError, ExportError), match=message):
        Detection(net, **{"size": (192, 256), "classes": names("retinanet"), **options})
