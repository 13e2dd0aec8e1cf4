"""RoIAlign over a feature pyramid as one GridSample: no plugin, no loop over levels.

The maps of the pyramid are stacked into one atlas; each region's sample points are computed in its
own level's pixels, then moved to where that level lies in the atlas. Source of what is computed: He
et al. 2017, "Mask R-CNN", section 3 (RoIAlign); Lin et al. 2017, equation 1, for a region's level.
It equals torchvision's `MultiScaleRoIAlign` with `aligned=False` and two samples a bin and side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, pad

_SAMPLES = 2
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224.0, 4.0
_EPSILON = 1e-6


class RegionSampler(nn.Module):
    """Cuts regions of a fixed number of bins out of the maps of a pyramid."""

    levels: Tensor

    def __init__(self, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> None:
        """Take each map's (height, width) and stride, finest first."""
        super().__init__()
        self._width = max(width for _, width in shapes)
        rows, offset = [], 0
        for (height, width), stride in zip(shapes, strides, strict=True):
            rows.append([1 / stride, height, width, offset])
            offset += height
        # Two rows of zeros end the atlas: samples outside their map go there.
        self._height = offset + 2
        self._coarsest = math.log2(strides[-1])
        self._finest = math.log2(strides[0])
        self.register_buffer("levels", torch.tensor(rows))

    def atlas(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the maps, each `float32[N, C, h, w]`, as one `float32[N, C, H, W]`."""
        wide = [pad(x, (0, self._width - x.shape[-1])) for x in maps]
        return pad(torch.cat(wide, dim=2), (0, 0, 0, 2))

    def forward(self, atlas: Tensor, boxes: Tensor, bins: int) -> Tensor:
        """Return `float32[N, R, C, bins, bins]` for `boxes: float32[N, R, 4]` x1 y1 x2 y2 px."""
        scale, height, width, offset = self.levels[self._level(boxes)].unbind(-1)
        x = self._points(boxes[..., 0] * scale, boxes[..., 2] * scale, bins)
        y = self._points(boxes[..., 1] * scale, boxes[..., 3] * scale, bins)
        x_inside = (x <= width[..., None]).to(x.dtype)
        y_inside = (y <= height[..., None]).to(y.dtype)
        x = torch.minimum(x.clamp(min=0), width[..., None] - 1)
        y = torch.minimum(y.clamp(min=0), height[..., None] - 1) + offset[..., None]
        count, regions, side = x.shape
        inside = y_inside[..., :, None] * x_inside[..., None, :]
        rows = y[..., :, None] * inside + (self._height - 1) * (1 - inside)
        columns = x[..., None, :].expand(count, regions, side, side)
        grid = torch.stack(
            [columns * (2 / (self._width - 1)) - 1, rows * (2 / (self._height - 1)) - 1], dim=-1
        ).reshape(count, regions * side, side, 2)
        found = grid_sample(atlas, grid, mode="bilinear", padding_mode="border", align_corners=True)
        channels = atlas.shape[1]
        pooled = avg_pool2d(found, _SAMPLES).reshape(count, channels, regions, bins, bins)
        return pooled.permute(0, 2, 1, 3, 4)

    def _level(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        side = ((x2 - x1) * (y2 - y1)).sqrt()
        level = (_CANONICAL_LEVEL + (side / _CANONICAL_SIDE).log2() + _EPSILON).floor()
        return (level.clamp(self._finest, self._coarsest) - self._finest).long()

    @staticmethod
    def _points(start: Tensor, end: Tensor, bins: int) -> Tensor:
        """Return the sample points along one side, `float32[N, R, 2 bins]`."""
        size = (end - start).clamp(min=1.0)
        places = (torch.arange(bins * _SAMPLES, device=start.device) + 0.5) / (bins * _SAMPLES)
        return start[..., None] + places * size[..., None]
