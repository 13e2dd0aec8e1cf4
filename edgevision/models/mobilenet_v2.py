"""MobileNetV2 feature extractor; parameter names are torchvision's, so its ImageNet weights load.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# (expansion t, output channels c, repeats n, stride s) of table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_bn_relu6(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            dilation * (kernel // 2),
            dilation,
            groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; a residual where shape allows one."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, dilation: int = 1
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn_relu6(in_channels, hidden, kernel=1))
        layers += [
            _conv_bn_relu6(hidden, hidden, stride=stride, groups=hidden, dilation=dilation),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x: float32[N, C, H, W]`."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The convolutional part of MobileNetV2: one feature map per stride (2, 4, 8, 16, 32).

    Beyond `output_stride` the maps keep their size: dilation takes the place of each stride left
    out, so that every filter sees as much of the picture as before (Chen et al. 2017, "Rethinking
    Atrous Convolution for Semantic Image Segmentation", section 3.1).
    """

    channels = (16, 24, 32, 96, 320)
    _taps = (1, 3, 6, 13, 17)

    def __init__(self, output_stride: int = 32) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: got {output_stride}, expected 8, 16 or 32")
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, stride=2)]
        in_channels, reached, dilation = 32, 2, 1
        for expansion, out_channels, repeats, stage_stride in _STAGES:
            stride = stage_stride if reached < output_stride else 1
            reached *= stride
            for i in range(repeats):
                block = InvertedResidual(
                    in_channels, out_channels, stride if i == 0 else 1, expansion, dilation
                )
                layers.append(block)
                in_channels = out_channels
                if i == 0:  # this block is the one whose stride was left out
                    dilation *= stage_stride // stride
        self.features = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of `x: float32[N, 3, H, W]`, finest first."""
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._taps:
                maps.append(x)
        return maps

    def load_imagenet(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load torchvision's `mobilenet_v2` state dict, leaving its classifier behind.

        Raises:
            RuntimeError: a key or shape does not fit.
        """
        left_behind = ("features.18.", "classifier.")
        self.load_state_dict({k: v for k, v in state.items() if not k.startswith(left_behind)})


class MobileNetV2Classifier(nn.Module):
    """The whole of MobileNetV2 as it was trained: logits of 1,000 classes, or of others."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        backbone = MobileNetV2()
        width = 1280
        last = _conv_bn_relu6(backbone.channels[-1], width, kernel=1)
        self.features = nn.Sequential(*backbone.features, last)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `float32[N, classes]` of `x: float32[N, 3, H, W]`."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
