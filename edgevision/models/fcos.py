"""A one-stage detector without anchors: each place of a pyramid gives one box and its scores.

Sources: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection", for boxes as
distances to the four sides, by the exponential of what a head shared by all maps says; Li et al.
2020, "Generalized Focal Loss", for scores that say how good the box is, too, in place of a
centre-ness. Suppression, which depends on the data, is the export's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgevision.models.fpn import PyramidBackbone
from edgevision.models.mobilenet_v2 import MobileNetV2

# So rarely has a place an object: the loss of training starts small.
_FIRST_SCORE = 0.01


class Tower(nn.Sequential):
    """3x3 convolutions of one width, and a last one for what is said of each place."""

    def __init__(self, channels: int, depth: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(channels, outputs, 3, padding=1))

    def weights_and_biases(self) -> list[tuple[Tensor, Tensor]]:
        """Return those of each convolution, the first to the last."""
        layers = [layer for layer in self if isinstance(layer, nn.Conv2d)]
        return [(layer.weight, layer.bias) for layer in layers if layer.bias is not None]


class FCOS(nn.Module):
    """Boxes and scores of each place, as `export.Detection` takes them.

    Attributes:
        strides: pixels from place to place in each map.
    """

    level_scale: Tensor

    def __init__(
        self, backbone: PyramidBackbone, classes: int, *, strides: Sequence[int], depth: int = 3
    ) -> None:
        """Build it.

        Args:
            backbone: gives the maps of a pyramid, finest first.
            classes: without a background.
            strides: of the maps that are used; the coarser ones are left out.
            depth: convolutions of each of the two towers.
        """
        super().__init__()
        self.backbone, self.strides = backbone, tuple(strides)
        self.scores = Tower(backbone.out_channels, depth, classes)
        self.distances = Tower(backbone.out_channels, depth, 4)
        self.level_scale = nn.Parameter(torch.ones(len(self.strides)))
        towers = [tower.weights_and_biases() for tower in (self.scores, self.distances)]
        for weight, bias in (*towers[0], *towers[1]):
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
            nn.init.zeros_(bias)
        first = math.log(_FIRST_SCORE / (1 - _FIRST_SCORE))
        for tower, start in zip(towers, (first, 1.0), strict=True):
            weight, bias = tower[-1]
            nn.init.normal_(weight, std=0.01)
            nn.init.constant_(bias, start)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes and logits of each place of `x: float32[N, 3, H, W]`, and the places.

        Returns:
            boxes: float32[N, P, 4] x1 y1 x2 y2 px.
            logits: float32[N, P, classes].
            places: float32[P, 2] x y px.
            strides: float32[P] px.
        """
        boxes, logits, places, strides = [], [], [], []
        maps = list(self.backbone(x).values())[: len(self.strides)]
        for level, (found, stride) in enumerate(zip(maps, self.strides, strict=True)):
            rows, columns = (torch.arange(side) + 0.5 for side in found.shape[-2:])
            y, at = torch.meshgrid(rows * stride, columns * stride, indexing="ij")
            place = torch.stack([at, y], -1).reshape(-1, 2).to(x)
            far = (self.distances(found) * self.level_scale[level]).exp() * stride
            far = far.flatten(2).transpose(1, 2)
            boxes.append(torch.cat([place - far[..., :2], place + far[..., 2:]], -1))
            logits.append(self.scores(found).flatten(2).transpose(1, 2))
            places.append(place)
            strides.append(torch.full_like(place[:, 0], stride))
        return torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(places), torch.cat(strides)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes `float32[N, P, 4]` x1 y1 x2 y2 px, and scores `float32[N, P, classes]`."""
        boxes, logits, _, _ = self.raw(x)
        return boxes, logits.sigmoid()


def fcos_mobilenet_v2(classes: int) -> FCOS:
    """Build a small FCOS over MobileNetV2: 2.2 M parameters, made for embedded GPUs.

    Args:
        classes: without a background.
    """
    body = MobileNetV2()
    backbone = PyramidBackbone(body, body.channels[-3:], channels=64)
    return FCOS(backbone, classes, strides=(8, 16, 32))
