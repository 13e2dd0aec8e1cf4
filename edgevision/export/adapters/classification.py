"""An image classifier with its pixels: camera frame in, likeliest labels out, one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.errors import ExportError
from edgevision.export.adapters.detections import MOST_PLACES
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.output import first_tensor, try_module
from edgevision.export.adapters.registry import ClassNames, Given, Size
from edgevision.export.adapters.resize import middle_of
from edgevision.export.zoo import card_size
from edgevision.tasks.classification import MAX_CLASSES, TASK

_OUTPUTS = ("labels", "scores")
# Two labels nearly as likely are told apart by digits that float16 does not have.
_WIDE_OPS = ("Softmax", "TopK")
# What the first layers lose, all others work on: one convolution in so many, the first of all, and
# what leads to it stay wide. On mobilenetv2-imagenet, where these are 14 % of the products, FP16
# keeps 479 of 481 first labels; without, 232 of 235.
_CONVS_FOR_ONE_WIDE = 10


class Classification(FrameAdapter["_PixelsToLabels"]):
    """Adapter of any module that gives logits `float32[N, classes]` of a picture.

    The graph takes `frame: uint8[1, H, W, 3]` of `input_size` and gives `labels: int32[1, K]` and
    `scores: float32[1, K]`, probabilities, likeliest first. Casting, normalising, resizing the
    short side, cutting the middle out, softmax and TopK are inside it. The module is used, never
    changed.

    Example:
        >>> net = Classification(module, size=(224, 224), resize_side=256, input_size=(480, 640),
        ...                      classes=["cat", "dog"])  # doctest: +SKIP
    """

    task = TASK.name

    def __init__(
        self,
        module: nn.Module,
        *,
        size: Size,
        classes: ClassNames,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channel_order: str = "rgb",
        input_size: Size | None = None,
        resize_side: int | None = None,
        top_k: int = 5,
        camera: Camera | None = None,
        cameras: Cameras = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: gives a tensor, a dict with "out", an object with `.logits`, or a tuple of which
                the first is taken.
            size: (H, W) of the net's input.
            classes: names, or (name, "#rrggbb"), of which the colours are not used.
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            channel_order: "rgb" or "bgr", the order in which the camera's frames will come.
            input_size: (H, W) of the camera's frame, if it is not `size`.
            resize_side: short side of the frame in pixels before its middle is cut out at `size`,
                antialiased as Pillow and torchvision do it; by default the smallest that covers
                `size`. torchvision's nets of 224 pixels were scored with 256.
            top_k: how many labels come out; of fewer classes, all of them.
            camera: what the camera gives, in place of `channel_order` and `input_size`; its `fit`
                and `region`, where given, in place of `resize_side`.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or its logits do not fit the classes.
        """
        self._classes = _class_names(classes)
        camera_input = CameraInput.check(size, input_size, channel_order, camera, cameras=cameras)
        if not isinstance(top_k, int) or not 1 <= top_k <= MOST_PLACES:
            raise ValueError(f"top_k: got {top_k!r}, expected 1 to {MOST_PLACES}")
        fit = middle_of(camera_input, resize_side)
        self._own_fit = None if fit is None else fit.name
        front = FrontEnd(camera_input, mean, std, fit=fit)
        graph = _PixelsToLabels(module, front, min(top_k, len(self._classes)))
        super().__init__(camera_input, graph, _OUTPUTS)
        self._check_logits()

    def settings(self) -> Settings:
        """Return the classes, sizes and channel order, for the manifest."""
        return self._settings({"classes": list(self._classes)}, own_fit=self._own_fit)

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return the probabilities and their ranking, and a deep net's first tenth."""
        nodes = list(graph.graph.node)
        made_by = {name: node for node in nodes for name in node.output}
        convs = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
        wide = len(convs) // _CONVS_FOR_ONE_WIDE
        kept = [node.name for node in nodes[: convs[wide - 1] + 1]] if wide else []
        kept += self._camera.kept_fp32(graph)
        node = made_by.get(_OUTPUTS[1])
        while node is not None and node.op_type in _WIDE_OPS:
            kept.append(node.name)
            node = made_by.get(node.input[0])
        return kept

    def _check_logits(self) -> None:
        logits = try_module(self._graph, self._graph.logits, self._camera)
        count = len(self._classes)
        if logits.shape != (self._camera.batch, count):
            raise ExportError(
                f"the module gives logits {list(logits.shape)}, expected [N, {count}] for the "
                f"{count} classes named. Name one class per logit."
            )


class _PixelsToLabels(nn.Module):
    """The fused graph around the user's module."""

    def __init__(self, module: nn.Module, front: FrontEnd, count: int) -> None:
        super().__init__()
        self.front, self.module, self.count = front, module, count

    def logits(self, frame: Tensor) -> Tensor:
        return first_tensor(self.module(self.front(frame)), what="logits")

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        scores, labels = self.logits(frame).softmax(-1).topk(self.count, dim=-1)
        return labels.to(torch.int32), scores


def _class_names(classes: ClassNames) -> tuple[str, ...]:
    """Return the name of each class; ValueError if they make no sense."""
    if isinstance(classes, str) or not 1 <= len(classes) <= MAX_CLASSES:
        found = "a string" if isinstance(classes, str) else len(classes)
        raise ValueError(f"classes: got {found}, expected 1 to {MAX_CLASSES} names")
    names = tuple(item if isinstance(item, str) else item[0] for item in classes)
    if not all(names) or len(set(names)) != len(names):
        raise ValueError("classes: a name is empty or stands twice")
    return names


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> Classification:
    """Return the adapter of a shipped net; see `registry`."""
    own = card_size(card)
    options = {"size": own, "classes": card["classes"], "mean": card["mean"], "std": card["std"]}
    options |= given
    camera = options.setdefault("camera", Camera())
    if camera.size is None:
        options["camera"] = replace(camera, size=tuple(card["input_size"]))
    if camera.fit is None and camera.region is None:
        # The short side grows with a size that was given.
        options["resize_side"] = round(card["resize_side"] * min(options["size"]) / min(own))
    return Classification(module, **options)


ADAPTER = Classification
