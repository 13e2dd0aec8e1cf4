"""torchvision's one-stage detectors as what `Detection` takes: a box and its scores per anchor.

RetinaNet, FCOS, SSD and SSDLite. Anchors are the module's own, made once for the net's size; what
torchvision does behind the heads, thresholds and suppression, is the export's. Sources: Lin et al.
2017, "Focal Loss"; Tian et al. 2019, "FCOS"; Liu et al. 2016, "SSD"; torchvision's detection
package for how boxes are coded, which is what trained nets expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export.adapters.detections import decode
from edgevision.export.adapters.registry import Size
from edgevision.export.graph.capture import evaluating


@dataclass(frozen=True, slots=True)
class Says:
    """What a detector says itself of its pictures and of what it keeps.

    Attributes:
        mean: of the pictures, per channel, on the 0-1 scale.
        std: of the pictures, per channel, on the 0-1 scale.
        corners: what the four numbers of a box are; see `Detection`.
        score: what a detection has at least.
        overlap: above which the worse of two boxes of a class goes; 1 for none.
        detections: how many come out at most.
        of_class: how many of a class are weighed at most; None for no limit.
        whole: what both sides of the net's input must be divisible by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    corners: str = "cxcywh"
    score: float = 0.05
    overlap: float = 0.5
    detections: int = 100
    of_class: int | None = None
    whole: int = 1


def is_one_stage(module: nn.Module) -> bool:
    """Return whether `module` is built as torchvision's one-stage detectors are."""
    return all(hasattr(module, name) for name in ("anchor_generator", "head", "box_coder"))


def _is_softmax(module: Any) -> bool:
    # SSD alone is trained on a background, of which its loss takes so many negatives.
    return hasattr(module, "neg_to_pos_ratio")


def says_of(module: Any) -> Says:
    """Read thresholds, counts and the pictures' scale off a one-stage detector."""
    transform = module.transform
    return Says(
        mean=tuple(map(float, transform.image_mean)),
        std=tuple(map(float, transform.image_std)),
        corners="xyxy",
        score=float(module.score_thresh),
        overlap=float(module.nms_thresh),
        detections=int(module.detections_per_img),
        of_class=int(module.topk_candidates) if _is_softmax(module) else None,
        whole=int(transform.size_divisible),
    )


class OneStage(nn.Module):
    """Boxes `float32[N, A, 4]` x1 y1 x2 y2 px and scores `float32[N, A, classes]` of a picture."""

    anchors: Tensor

    def __init__(self, module: Any, size: Size, classes: int) -> None:
        """Make the anchors of pictures of `size`, for a net of `classes` without a background.

        Raises:
            ExportError: the module does not run, or its boxes are coded in another way.
        """
        super().__init__()
        self.backbone, self.head = module.backbone, module.head
        self.is_softmax, self.classes = _is_softmax(module), classes
        self.weights = getattr(module.box_coder, "weights", None)
        pictures = SimpleNamespace(tensors=torch.zeros(1, 3, *size), image_sizes=[size])
        with evaluating(module):
            (anchors,) = module.anchor_generator(pictures, self._maps(pictures.tensors))
        if self.weights is None and not getattr(module.box_coder, "normalize_by_size", False):
            raise ExportError(
                f"{type(module).__name__}: its box_coder is a {type(module.box_coder).__name__}, "
                "expected torchvision's BoxCoder, or BoxLinearCoder with normalize_by_size"
            )
        self.register_buffer("anchors", anchors)

    def _maps(self, x: Tensor) -> list[Tensor]:
        found = self.backbone(x)
        return list(found.values()) if isinstance(found, Mapping) else [found]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both of `x: float32[N, 3, H, W]`."""
        found = self.head(self._maps(x))
        logits, moves = found["cls_logits"], found["bbox_regression"]
        scores = logits.softmax(-1) if self.is_softmax else logits.sigmoid()
        if "bbox_ctrness" in found:
            scores = (scores * found["bbox_ctrness"].sigmoid()).sqrt()
        if scores.shape[-1] == self.classes + 1:
            scores = scores[..., 1:]  # the first is the background, or, of a sigmoid, never taught
        anchors = self.anchors.expand_as(moves)
        if self.weights is not None:
            return decode(anchors, moves, self.weights), scores
        low, high = anchors[..., :2], anchors[..., 2:]
        centre, far = (low + high) / 2, moves * torch.cat([high - low, high - low], -1)
        return torch.cat([centre - far[..., :2], centre + far[..., 2:]], -1), scores
