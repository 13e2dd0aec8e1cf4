"""A feature pyramid over a backbone: one map of as many channels per stride, 4 to 64.

Source: Lin et al. 2017, "Feature Pyramid Networks for Object Detection", section 3. Batch norms of
the backbone are frozen, as detectors train with too few pictures at once to estimate them.
Parameter names are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d


class FrozenBatchNorm2d(nn.Module):
    """A batch norm that is a scale and a shift, whatever the mode."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Checkpoints of nets that were trained with plain batch norms have a counter.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift `x: float32[N, C, H, W]`."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def freeze(module: nn.Module) -> nn.Module:
    """Put a frozen batch norm in place of each batch norm, and return the module."""
    for name, part in module.named_children():
        if isinstance(part, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(part.num_features, eps=part.eps)
            frozen.load_state_dict(part.state_dict())
            setattr(module, name, frozen)
        else:
            freeze(part)
    return module


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, summed from coarse to fine, then smoothed by 3x3."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, channels, 1)) for count in in_channels
        )
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map for each of `maps`, finest first, and one of half the coarsest's size.

        Maps finer than the pyramid's finest are left out.
        """
        maps = maps[-len(self.inner_blocks) :]
        merged = self.inner_blocks[-1](maps[-1])
        found = [self.layer_blocks[-1](merged)]
        for index in range(len(maps) - 2, -1, -1):
            lateral = self.inner_blocks[index](maps[index])
            merged = lateral + interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            found.insert(0, self.layer_blocks[index](merged))
        return [*found, max_pool2d(found[-1], 1, 2)]


class PyramidBackbone(nn.Module):
    """A backbone that gives a list of maps, with a pyramid on top."""

    def __init__(self, body: nn.Module, in_channels: Sequence[int], *, channels: int = 256) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid(in_channels, channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps of `x: float32[N, 3, H, W]` by name: "0", "1", ... and "pool"."""
        maps = self.fpn(self.body(x))
        names = [*map(str, range(len(maps) - 1)), "pool"]
        return OrderedDict(zip(names, maps, strict=True))
