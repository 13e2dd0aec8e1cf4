"""torchvision, with plain operators in place of compiled ones that do not fit this torch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

_SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float threshold) -> Tensor",
    "roi_align": (
        "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    ),
}
_DEFINITIONS: list[torch.library.Library] = []  # an operator lives as long as what defined it


@functools.cache
def installed_torchvision() -> ModuleType:
    """Return torchvision, able to run; skip the test where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed")
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        _define()
    return importlib.import_module("torchvision")


def _define() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name, signature in _SIGNATURES.items():
        library.define(name + signature)
    library.impl("nms", suppressed, "CPU")
    library.impl("roi_align", cut, "CPU")
    _DEFINITIONS.append(library)
    for name in ("boxes", "roi_align"):
        module = importlib.import_module(f"torchvision.ops.{name}")
        module._assert_has_ops = lambda: None  # type: ignore[attr-defined]
        module._has_ops = lambda: True  # type: ignore[attr-defined]


def suppressed(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return the kept boxes' places, best first: what torchvision's compiled operator gives."""
    kept: list[int] = []
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    for place in scores.argsort(descending=True, stable=True).tolist():
        if gone[place]:
            continue
        kept.append(place)
        width = (torch.minimum(x2[place], x2) - torch.maximum(x1[place], x1)).clamp(min=0)
        height = (torch.minimum(y2[place], y2) - torch.maximum(y1[place], y1)).clamp(min=0)
        shared = width * height
        gone |= shared > overlap * (area[place] + area - shared)
    return torch.tensor(kept, dtype=torch.long)


def cut(
    maps: Tensor,
    regions: Tensor,
    scale: float,
    height: int,
    width: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    """Return regions as torchvision's compiled operator cuts them: zero beyond the map."""
    rows, columns = maps.shape[-2:]
    found = []
    for region in regions:
        x1, y1, x2, y2 = (region[1:] * scale).unbind()
        y = y1 + _places(height, samples) * (y2 - y1).clamp(min=1)
        x = x1 + _places(width, samples) * (x2 - x1).clamp(min=1)
        inside = ((y <= rows)[:, None] & (x <= columns)[None]).float()
        y, x = y.clamp(0, rows - 1), x.clamp(0, columns - 1)
        y0, x0 = y.floor().long(), x.floor().long()
        y9, x9 = (y0 + 1).clamp(max=rows - 1), (x0 + 1).clamp(max=columns - 1)
        v, u = (y - y0)[:, None], (x - x0)[None]
        picture = maps[int(region[0])]
        upper = picture[:, y0][:, :, x0] * (1 - u) + picture[:, y0][:, :, x9] * u
        lower = picture[:, y9][:, :, x0] * (1 - u) + picture[:, y9][:, :, x9] * u
        found.append(avg_pool2d((upper * (1 - v) + lower * v) * inside, samples))
    return torch.stack(found) if found else maps.new_zeros(0, maps.shape[1], height, width)


def _places(bins: int, samples: int) -> Tensor:
    return (torch.arange(bins * samples) + 0.5) / (bins * samples)
