"""MobileNetV3-Large feature extractor; parameter names are those of torchvision's features.

Source: Howard et al. 2019, "Searching for MobileNetV3", table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

# (kernel, expanded channels, output channels, squeeze-and-excite, hard swish, stride) of table 1.
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def _conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """Scale each channel by what the mean of the whole map says of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _multiple_of_8(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.relu = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale `x: float32[N, C, H, W]`."""
        scale: Tensor = self.gate(self.fc2(self.relu(self.fc1(self.pool(x)))))
        return x * scale


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, squeeze and excite, project; a residual where shape allows one."""

    def __init__(
        self,
        in_channels: int,
        block: tuple[int, int, int, bool, bool, int],
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        kernel, hidden, out_channels, excite, hard_swish, table_stride = block
        activation = nn.Hardswish if hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(_conv_bn(in_channels, hidden, activation=activation))
        layers.append(
            _conv_bn(
                hidden, hidden, kernel, stride,
                dilation=dilation, groups=hidden, activation=activation,
            )
        )  # fmt: skip
        if excite:
            layers.append(SqueezeExcite(hidden))
        layers.append(_conv_bn(hidden, out_channels))
        self.block = nn.Sequential(*layers)
        self.residual = table_stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x: float32[N, C, H, W]`."""
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class MobileNetV3Large(nn.ModuleList):
    """The convolutional part: feature maps of stride 2, 4, 8, 16, 32, and the last one widened.

    Beyond `output_stride` the maps keep their size and the filters are dilated instead, the one
    whose stride is left out included.
    """

    channels = (16, 24, 40, 80, 160, 960)
    _taps = (0, 2, 4, 7, 13, 16)

    def __init__(self, output_stride: int = 32) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: got {output_stride}, expected 8, 16 or 32")
        layers: list[nn.Module] = [_conv_bn(3, 16, 3, 2, activation=nn.Hardswish)]
        in_channels, reached, dilation = 16, 2, 1
        for block in _BLOCKS:
            *_, out_channels, _, _, table_stride = block
            stride = table_stride if reached < output_stride else 1
            reached *= stride
            dilation *= table_stride // stride
            layers.append(InvertedResidual(in_channels, block, stride, dilation))
            in_channels = out_channels
        layers.append(_conv_bn(in_channels, 6 * in_channels, activation=nn.Hardswish))
        super().__init__(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of `x: float32[N, 3, H, W]`, finest first."""
        maps = []
        for i, layer in enumerate(self):
            x = layer(x)
            if i in self._taps:
                maps.append(x)
        return maps


def _multiple_of_8(channels: int) -> int:
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
