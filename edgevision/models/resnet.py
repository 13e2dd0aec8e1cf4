"""ResNet-50 and ResNet-101 feature extractors with dilation in place of late strides.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1; the stride of a
bottleneck sits in its 3x3 convolution. Dilation after Chen et al. 2017, "Rethinking Atrous
Convolution for Semantic Image Segmentation", section 3.1. Parameter names are torchvision's.
"""

from __future__ import annotations

from torch import Tensor, nn

_EXPANSION = 4


class Bottleneck(nn.Module):
    """Reduce, filter, expand, and add the input."""

    def __init__(
        self, in_channels: int, width: int, stride: int, dilation: int, *, project: bool
    ) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x: float32[N, C, H, W]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        summed: Tensor = self.relu(y + shortcut)
        return summed


class ResNet(nn.Module):
    """The convolutional part: one feature map per stage, of stride 4, 8, 16 and 32."""

    channels = (256, 512, 1024, 2048)

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        *,
        replace_stride_with_dilation: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        """Build it.

        Args:
            blocks: bottlenecks of each stage: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
            replace_stride_with_dilation: whether stages 2, 3 and 4 keep the size of their input.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels, dilation = 64, 1
        stages = []
        for i, (count, dilate) in enumerate(
            zip(blocks, (False, *replace_stride_with_dilation), strict=True)
        ):
            width = 64 * 2**i
            stride = 1 if i == 0 or dilate else 2
            stage = [Bottleneck(in_channels, width, stride, dilation, project=True)]
            # The first bottleneck is the one whose stride is left out: what follows is dilated.
            dilation *= 2 if dilate else 1
            in_channels = width * _EXPANSION
            stage += [
                Bottleneck(in_channels, width, 1, dilation, project=False) for _ in range(count - 1)
            ]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of `x: float32[N, 3, H, W]`, finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def resnet50(*, output_stride: int = 32) -> ResNet:
    """Build ResNet-50; `output_stride` is 8, 16 or 32."""
    return ResNet((3, 4, 6, 3), replace_stride_with_dilation=_dilated(output_stride))


def resnet101(*, output_stride: int = 32) -> ResNet:
    """Build ResNet-101; `output_stride` is 8, 16 or 32."""
    return ResNet((3, 4, 23, 3), replace_stride_with_dilation=_dilated(output_stride))


def _dilated(output_stride: int) -> tuple[bool, bool, bool]:
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride: got {output_stride}, expected 8, 16 or 32")
    return False, output_stride < 16, output_stride < 32
