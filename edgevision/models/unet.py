"""U-Net for semantic segmentation, with a plain encoder or a MobileNetV2 one.

Source: Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation".
Any input size works: the decoder resizes to each skip's own size instead of doubling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgevision.models.mobilenet_v2 import MobileNetV2


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_bn_relu(in_channels, out_channels), *_conv_bn_relu(out_channels, out_channels)
    )


class PlainEncoder(nn.Module):
    """The paper's contracting path: double convolutions with max pooling between."""

    def __init__(self, width: int, depth: int = 5) -> None:
        super().__init__()
        self.channels = tuple(width * 2**i for i in range(depth))
        self.blocks = nn.ModuleList(
            _double_conv(i, o) for i, o in zip((3, *self.channels), self.channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of `x: float32[N, 3, H, W]`, finest first."""
        maps: list[Tensor] = []
        for block in self.blocks:
            x = block(self.pool(maps[-1]) if maps else x)
            maps.append(x)
        return maps


class UNet(nn.Module):
    """Encoder, decoder with skips, and a 1x1 head; logits come at the input's own size."""

    def __init__(
        self, encoder: PlainEncoder | MobileNetV2, decoder_channels: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        *skips, bottom = encoder.channels
        blocks = []
        for skip, out_channels in zip(reversed(skips), decoder_channels, strict=True):
            blocks.append(_double_conv(bottom + skip, out_channels))
            bottom = out_channels
        self.decoder = nn.ModuleList(blocks)
        self.head = nn.Conv2d(bottom, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `logits: float32[N, classes, H, W]` of `x: float32[N, 3, H, W]`."""
        *skips, y = self.encoder(x)
        for skip, block in zip(reversed(skips), self.decoder, strict=True):
            y = block(torch.cat((_resize(y, skip), skip), dim=1))
        return _resize(self.head(y), x)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def unet(classes: int, *, width: int = 32) -> UNet:
    """Build the plain U-Net of the paper, `width` channels at full size."""
    encoder = PlainEncoder(width)
    return UNet(encoder, tuple(reversed(encoder.channels[:-1])), classes)


def unet_mobilenet_v2(classes: int) -> UNet:
    """Build a U-Net over MobileNetV2: 2.9 M parameters, made for embedded GPUs."""
    return UNet(MobileNetV2(), (128, 64, 48, 32), classes)
