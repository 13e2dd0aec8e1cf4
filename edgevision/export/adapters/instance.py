"""Instance segmentation with its pixels: camera frame in, objects with masks out, one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from torch import nn

from edgevision.bundle.manifest import Settings
from edgevision.errors import ExportError
from edgevision.export.adapters.detections import CANDIDATES, MOST_PLACES, Detections, names
from edgevision.export.adapters.frame import (
    Camera,
    CameraInput,
    Cameras,
    class_labels,
    labels_json,
    replaced_batch,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.registry import Given
from edgevision.export.graph.capture import evaluating
from edgevision.export.zoo import card_classes, card_size
from edgevision.models.mask_rcnn import DetectionSettings, MaskRCNN

_LARGEST_STRIDE = 32
_NARROW_OPS = ("Conv", "ConvTranspose", "Gemm", "Relu")


class InstanceSegmentation(FrameAdapter["Detections"]):
    """Adapter of a Mask R-CNN: torchvision's module over any backbone with a pyramid, or ours.

    The graph takes `frame: uint8[N, H, W, 3]` of `input_size` and gives padded detections, see
    `detections.names`. Anchors, thresholds and counts are the module's own. It holds no
    NonMaxSuppression, RoiAlign, NonZero, Loop or If, and no shape that depends on the picture. The
    module is used, never changed.

    Example:
        >>> net = InstanceSegmentation(module, size=(512, 512),
        ...                            classes=["person", "dog"])  # doctest: +SKIP
    """

    task = "instance"

    def __init__(
        self,
        module: nn.Module,
        *,
        size: tuple[int, int],
        classes: Sequence[str | tuple[str, str]],
        batch: int | None = None,
        channel_order: str = "rgb",
        input_size: tuple[int, int] | None = None,
        masks: str = "cells",
        camera: Camera | None = None,
        cameras: Cameras = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: torchvision's MaskRCNN, or `edgevision.models.mask_rcnn.MaskRCNN`.
            size: (H, W) of the net's input, each divisible by 32.
            classes: names, or (name, "#rrggbb"), without the background.
            batch: what `cameras` was called before.
            channel_order: "rgb" or "bgr", the order in which the camera's frames will come.
            input_size: (H, W) of the camera's frame, if it is not `size`.
            masks: "cells", 28x28 for each box, which the result pastes where they are asked for; or
                "frame", pasted in the graph: a byte for each pixel and possible object.
            camera: what the camera gives, in place of `channel_order` and `input_size`.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module is no Mask R-CNN that can be exported, or does not fit the
                classes.
        """
        self._classes = class_labels(classes)
        camera_input = CameraInput.check(
            size, input_size, channel_order, camera, cameras=replaced_batch(batch, cameras)
        )
        if any(side % _LARGEST_STRIDE for side in camera_input.size):
            height, width = (-(-side // _LARGEST_STRIDE) * _LARGEST_STRIDE for side in size)
            raise ValueError(
                f"size: got {size}, both sides must be divisible by {_LARGEST_STRIDE}; "
                f"take ({height}, {width}) and give the camera's frame as input_size"
            )
        if masks not in ("cells", "frame"):
            raise ValueError(f"masks: got '{masks}', expected cells or frame")
        self.detection = read_settings(module)
        check(module, self.detection, len(self._classes), has_masks=True)
        with evaluating(module):
            graph = Detections(module, self.detection, camera_input, masks=masks)
        super().__init__(camera_input, graph, [*names()])

    def settings(self) -> Settings:
        """Return the classes, sizes and channel order, for the manifest."""
        return self._settings({"classes": labels_json(self._classes)})

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what stands behind the choice of anchors, but for the heads' layers.

        Boxes, overlaps and sample points need more digits than float16 has: at 1,000 pixels its
        steps are half a pixel.
        """
        behind, kept = set[str](), self._camera.kept_fp32(graph)
        for node in graph.graph.node:
            if node.op_type == "TopK" or behind & set(node.input):
                behind.update(node.output)
                if node.op_type not in _NARROW_OPS:
                    kept.append(node.name)
        return kept


def read_settings(module: Any) -> DetectionSettings:
    """Read thresholds, counts and anchors off a module.

    Raises:
        ExportError: it is no Mask R-CNN, or one that is built otherwise; says what is missing.
    """
    if isinstance(module, MaskRCNN):
        return module.settings
    try:
        rpn, heads, transform = module.rpn, module.roi_heads, module.transform
        generator = rpn.anchor_generator
        if tuple(heads.box_coder.weights) != (10.0, 10.0, 5.0, 5.0):
            raise ExportError(f"box_coder weights are {heads.box_coder.weights}, not 10 10 5 5")
        for pool, bins in ((heads.box_roi_pool, 7), (heads.mask_roi_pool, 14)):
            if pool is None:
                continue  # a Faster R-CNN has no masks
            found = (tuple(pool.output_size), pool.sampling_ratio)
            if found != ((bins, bins), 2):
                raise ExportError(
                    f"a region pool has output size and samples {found}, expected "
                    f"{((bins, bins), 2)}: other heads are not supported"
                )
        ratios = {tuple(map(float, r)) for r in generator.aspect_ratios}
        if len(ratios) != 1:
            raise ExportError(f"the levels have different aspect ratios {sorted(ratios)}")
        return DetectionSettings(
            anchor_sizes=tuple(tuple(sizes) for sizes in generator.sizes),
            aspect_ratios=ratios.pop(),
            mean=tuple(map(float, transform.image_mean)),
            std=tuple(map(float, transform.image_std)),
            proposals=(rpn._pre_nms_top_n["testing"], rpn._post_nms_top_n["testing"]),
            proposal_overlap=float(rpn.nms_thresh),
            proposal_score=float(rpn.score_thresh),
            score=float(heads.score_thresh),
            overlap=float(heads.nms_thresh),
            detections=int(heads.detections_per_img),
        )
    except AttributeError as error:
        raise ExportError(
            f"{type(module).__name__} is no Mask R-CNN that can be exported: {error}. Give "
            "torchvision's MaskRCNN with a pyramid backbone, or edgevision.models.mask_rcnn's."
        ) from error


def check(module: Any, settings: DetectionSettings, classes: int, *, has_masks: bool) -> None:
    """Refuse what the static graph cannot hold."""
    most = max(*settings.proposals, settings.detections)
    if most > MOST_PLACES:
        raise ExportError(
            f"the module keeps up to {most} boxes at a step, TensorRT's TopK takes {MOST_PLACES} "
            "at most: set a smaller pre- or post-NMS count"
        )
    if settings.detections > CANDIDATES:
        raise ExportError(f"detections: {settings.detections} a picture, at most {CANDIDATES}")
    if has_masks and not _has_masks(module):
        is_keypoints = getattr(module.roi_heads, "keypoint_predictor", None) is not None
        raise ExportError(
            "the module has no mask head; "
            + (
                "no task has a Keypoint R-CNN's points"
                if is_keypoints
                else "export a Faster R-CNN as Detection, --task detection"
            )
        )
    count = module.roi_heads.box_predictor.cls_score.out_features
    if count != classes + 1:
        raise ExportError(
            f"the head tells {count - 1} classes and the background apart, {classes} are named"
        )


def is_two_stage(module: nn.Module) -> bool:
    """Return whether `module` is built as torchvision's Faster and Mask R-CNN are."""
    return hasattr(module, "rpn") and hasattr(module, "roi_heads")


def _has_masks(module: Any) -> bool:
    return hasattr(getattr(module.roi_heads, "mask_predictor", None), "mask_fcn_logits")


def recognises(module: nn.Module) -> bool:
    """Return whether `module` is built as torchvision's Mask R-CNN is."""
    return is_two_stage(module) and _has_masks(module)


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> InstanceSegmentation:
    """Return the adapter of a shipped net; see `registry`."""
    own = {"size": card_size(card), "classes": card_classes(card)}
    return InstanceSegmentation(module, **{**own, **given})


ADAPTER = InstanceSegmentation
