"""FCN: a small convolutional head on a dilated backbone.

Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", in the form with
a dilated backbone and no skips that torchvision's checkpoints have.
"""

from __future__ import annotations

from torch import nn

from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.models.resnet import ResNet, resnet50, resnet101
from edgevision.models.segmenter import Segmenter


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the channels, then a 1x1 to the classes."""

    def __init__(self, in_channels: int, classes: int) -> None:
        hidden = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, classes, 1),
        )


def fcn_resnet50(classes: int, *, aux: bool = False, output_stride: int = 8) -> Segmenter:
    """Build FCN over ResNet-50; torchvision's `fcn_resnet50` checkpoints load with aux=True."""
    return _over_resnet(resnet50(output_stride=output_stride), classes, aux=aux)


def fcn_resnet101(classes: int, *, aux: bool = False, output_stride: int = 8) -> Segmenter:
    """Build FCN over ResNet-101; torchvision's `fcn_resnet101` checkpoints load with aux=True."""
    return _over_resnet(resnet101(output_stride=output_stride), classes, aux=aux)


def fcn_mobilenet_v2(classes: int, *, output_stride: int = 16) -> Segmenter:
    """Build FCN over MobileNetV2: 2.0 M parameters, made for embedded GPUs."""
    backbone = MobileNetV2(output_stride)
    return Segmenter(backbone, FCNHead(backbone.channels[-1], classes))


def _over_resnet(backbone: ResNet, classes: int, *, aux: bool) -> Segmenter:
    *_, before, last = backbone.channels
    return Segmenter(backbone, FCNHead(last, classes), FCNHead(before, classes) if aux else None)
