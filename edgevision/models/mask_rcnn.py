"""Mask R-CNN: where objects are, what they are, and which pixels are theirs.

Source: He et al. 2017, "Mask R-CNN", with the feature pyramid of Lin et al. 2017 and the proposals
of Ren et al. 2015, "Faster R-CNN". This is the net: its detections, which depend on the data, are
the export's business. Parameter names are torchvision's, and `maskrcnn_resnet50_fpn`'s state dict
loads strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgevision.models.fpn import PyramidBackbone, freeze
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.models.resnet import ResNet, resnet50

_BOX_SIDE, _MASK_SIDE = 7, 14


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """What turns the net's outputs into detections; the defaults are torchvision's.

    Attributes:
        anchor_sizes: side of the anchors in pixels, for each map of the pyramid.
        aspect_ratios: height over width of the anchors at each place.
        mean: of the pictures, per channel, on the 0-1 scale.
        std: of the pictures, per channel, on the 0-1 scale.
        proposals: best anchors of each map before suppression, and proposals left after it.
        proposal_overlap: proposals that overlap more are one.
        proposal_score: proposals with a smaller objectness are dropped.
        score: detections with a smaller score are dropped.
        overlap: detections of one class that overlap more are one.
        detections: the most there are of a picture.
    """

    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    proposals: tuple[int, int] = (1000, 1000)
    proposal_overlap: float = 0.7
    proposal_score: float = 0.0
    score: float = 0.05
    overlap: float = 0.5
    detections: int = 100


class ProposalHead(nn.Module):
    """Objectness and box deltas of each anchor."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        )
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return `float32[N, A, h, w]` and `float32[N, 4 A, h, w]` for each map."""
        hidden = [self.conv(x) for x in maps]
        return [self.cls_logits(x) for x in hidden], [self.bbox_pred(x) for x in hidden]


class Proposals(nn.Module):
    """Holds the head, under the name that its parameters have."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.head = ProposalHead(channels, anchors)


class BoxHead(nn.Module):
    """Two fully connected layers."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_features, width)
        self.fc7 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return `float32[R, width]` of `x: float32[R, C, 7, 7]`."""
        hidden: Tensor = self.fc7(self.fc6(x.flatten(1)).relu()).relu()
        return hidden


class BoxPredictor(nn.Module):
    """Class scores, and box deltas of each class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, classes)
        self.bbox_pred = nn.Linear(width, classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `float32[R, classes]` and `float32[R, 4 classes]`."""
        return self.cls_score(x), self.bbox_pred(x)


class MaskHead(nn.Sequential):
    """Four 3x3 convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        blocks = []
        for index in range(4):
            conv = nn.Conv2d(channels if index == 0 else width, width, 3, padding=1)
            blocks.append(nn.Sequential(conv, nn.ReLU()))
        super().__init__(*blocks)


class MaskPredictor(nn.Module):
    """Doubles the side, and gives a mask for each class."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, width, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `float32[R, classes, 28, 28]` of `x: float32[R, C, 14, 14]`."""
        logits: Tensor = self.mask_fcn_logits(self.conv5_mask(x).relu())
        return logits


class RegionHeads(nn.Module):
    """What looks at each proposal, and at each detection."""

    def __init__(self, channels: int, classes: int, *, width: int, mask_width: int) -> None:
        super().__init__()
        self.box_head = BoxHead(channels * _BOX_SIDE**2, width)
        self.box_predictor = BoxPredictor(width, classes)
        self.mask_head = MaskHead(channels, mask_width)
        self.mask_predictor = MaskPredictor(mask_width, mask_width, classes)


class MaskRCNN(nn.Module):
    """The parts of Mask R-CNN; `export.InstanceSegmentation` makes detections of them.

    Attributes:
        settings: what turns its outputs into detections.
    """

    def __init__(
        self,
        backbone: PyramidBackbone,
        classes: int,
        *,
        settings: DetectionSettings = DetectionSettings(),
        width: int = 1024,
        mask_width: int = 256,
    ) -> None:
        """Build it.

        Args:
            backbone: gives the maps of a pyramid.
            classes: with the background, which is class 0.
            settings: see `DetectionSettings`.
            width: of the box head.
            mask_width: of the mask head.
        """
        super().__init__()
        self.settings = settings
        channels = backbone.out_channels
        anchors = len(settings.aspect_ratios) * len(settings.anchor_sizes[0])
        self.backbone = backbone
        self.rpn = Proposals(channels, anchors)
        self.roi_heads = RegionHeads(channels, classes, width=width, mask_width=mask_width)


def maskrcnn_resnet50(
    classes: int = 91, *, settings: DetectionSettings = DetectionSettings()
) -> MaskRCNN:
    """Build Mask R-CNN over ResNet-50 with a feature pyramid; 91 classes are COCO's."""
    body = freeze(resnet50())
    return MaskRCNN(PyramidBackbone(body, ResNet.channels), classes, settings=settings)


def maskrcnn_mobilenet_v2(classes: int, *, finest_anchor: int = 16) -> MaskRCNN:
    """Build a small Mask R-CNN over MobileNetV2: 3.1 M parameters, made for embedded GPUs.

    Args:
        classes: with the background.
        finest_anchor: side in pixels of the finest map's anchors; each map doubles it.
    """
    body = MobileNetV2()
    settings = DetectionSettings(
        anchor_sizes=tuple((finest_anchor * 2**level,) for level in range(5)),
        proposals=(300, 100),
        detections=20,
    )
    backbone = PyramidBackbone(body, body.channels[-4:], channels=64)
    return MaskRCNN(backbone, classes, settings=settings, width=256, mask_width=64)
