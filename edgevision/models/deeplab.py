"""DeepLabV3: atrous spatial pyramid pooling on a dilated backbone.

Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation": the
pyramid is figure 5, its rates section 4.1, its image-level features section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgevision.models.fcn import FCNHead
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.models.mobilenet_v3 import MobileNetV3Large
from edgevision.models.resnet import ResNet, resnet50, resnet101
from edgevision.models.segmenter import Segmenter

# The paper's rates for output stride 8; at 16 half of them cover the same picture.
_RATES = (12, 24, 36)


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 1, rate: int = 1
) -> list[nn.Module]:
    padding = rate * (kernel // 2)
    return [
        nn.Conv2d(in_channels, out_channels, kernel, 1, padding, rate, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class ImagePooling(nn.ModuleList):
    """The mean of the whole map, filtered and spread over the map again."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__([nn.AdaptiveAvgPool2d(1), *_conv_bn_relu(in_channels, out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector at every place of `x: float32[N, C, H, W]`."""
        y = x
        for layer in self:
            y = layer(y)
        return y.expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """A 1x1 convolution, one 3x3 for each atrous rate, and image pooling, side by side."""

    def __init__(self, in_channels: int, rates: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Sequential(*_conv_bn_relu(in_channels, out_channels)),
                *(
                    nn.Sequential(*_conv_bn_relu(in_channels, out_channels, 3, rate))
                    for rate in rates
                ),
                ImagePooling(in_channels, out_channels),
            ]
        )
        self.project = nn.Sequential(
            *_conv_bn_relu(len(self.convs) * out_channels, out_channels), nn.Dropout(0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x: float32[N, C, H, W]` at every rate and mix the results."""
        y: Tensor = self.project(torch.cat([conv(x) for conv in self.convs], dim=1))
        return y


class DeepLabHead(nn.Sequential):
    """ASPP, a 3x3 convolution, and a 1x1 to the classes."""

    def __init__(
        self, in_channels: int, classes: int, rates: Sequence[int] = _RATES, width: int = 256
    ) -> None:
        super().__init__(
            ASPP(in_channels, rates, width),
            *_conv_bn_relu(width, width, 3),
            nn.Conv2d(width, classes, 1),
        )


def deeplabv3_resnet50(
    classes: int, *, aux: bool = False, output_stride: int = 8, rates: Sequence[int] = _RATES
) -> Segmenter:
    """Build DeepLabV3 over ResNet-50; torchvision's checkpoints load with aux=True."""
    return _over_resnet(resnet50(output_stride=output_stride), classes, rates, aux=aux)


def deeplabv3_resnet101(
    classes: int, *, aux: bool = False, output_stride: int = 8, rates: Sequence[int] = _RATES
) -> Segmenter:
    """Build DeepLabV3 over ResNet-101; torchvision's checkpoints load with aux=True."""
    return _over_resnet(resnet101(output_stride=output_stride), classes, rates, aux=aux)


def deeplabv3_mobilenet_v3_large(
    classes: int, *, aux: bool = False, output_stride: int = 16, rates: Sequence[int] = _RATES
) -> Segmenter:
    """Build DeepLabV3 over MobileNetV3-Large; torchvision's checkpoints load with aux=True."""
    backbone = MobileNetV3Large(output_stride)
    aux_map = -4  # of stride 8, as in torchvision's checkpoints
    return Segmenter(
        backbone,
        DeepLabHead(backbone.channels[-1], classes, rates),
        FCNHead(backbone.channels[aux_map], classes) if aux else None,
        aux_map=aux_map,
    )


def deeplabv3_mobilenet_v2(
    classes: int, *, output_stride: int = 16, rates: Sequence[int] = (6, 12, 18), width: int = 128
) -> Segmenter:
    """Build DeepLabV3 over MobileNetV2: 3.2 M parameters, made for embedded GPUs."""
    backbone = MobileNetV2(output_stride)
    return Segmenter(backbone, DeepLabHead(backbone.channels[-1], classes, rates, width))


def _over_resnet(backbone: ResNet, classes: int, rates: Sequence[int], *, aux: bool) -> Segmenter:
    *_, before, last = backbone.channels
    return Segmenter(
        backbone, DeepLabHead(last, classes, rates), FCNHead(before, classes) if aux else None
    )
