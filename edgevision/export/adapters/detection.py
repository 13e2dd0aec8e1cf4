"""A detector with its pixels: camera frame in, the best boxes out, one graph without plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.errors import ExportError
from edgevision.export.adapters.detections import clip
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
    class_labels,
    labels_json,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.output import try_module
from edgevision.export.adapters.registry import (
    NO_FRONT,
    ClassNames,
    Front,
    Size,
    need_size_and_classes,
)
from edgevision.export.adapters.suppression import suppress
from edgevision.export.zoo import card_classes, card_size
from edgevision.tasks.detection import OUTPUTS, TASK
from edgevision.tasks.objects import MAX_CANDIDATES

_CORNERS = ("cxcywh", "xyxy")
_NARROW_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "LayerNormalization", "Resize")


class Detection(FrameAdapter["_PixelsToBoxes"]):
    """Adapter of any module that gives boxes and scores, before suppression or without need of it.

    The module gives one of:

    - `float32[N, 4 + classes, anchors]`, boxes in pixels of the net's input and probabilities, as
      YOLO's heads do once their anchors are decoded;
    - a tuple (boxes `float32[N, anchors, 4]`, scores `float32[N, anchors, classes]`), the same;
    - an object with `.logits` `[N, queries, classes]`, sigmoid, or `[N, queries, classes + 1]`,
      softmax with the last for nothing, and `.pred_boxes` `[N, queries, 4]`, centre and size as
      shares of the picture, as transformers' DETR and RT-DETR families do.

    The graph takes `frame` of the camera and gives padded detections: `boxes: float32[1, D, 4]` x1
    y1 x2 y2 in pixels of the frame, `labels: int32[1, D]` from 1, `scores: float32[1, D]` best
    first, `count`, `overflow` and `converged`. The module is used, never changed.

    Example:
        >>> net = Detection(module, size=(640, 640), classes=["person", "dog"], mean=(0, 0, 0),
        ...                 std=(1, 1, 1), overlap=0.5,
        ...                 camera=Camera(size=(1080, 1920), fit="letterbox"))  # doctest: +SKIP
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
        camera: Camera | None = None,
        cameras: Cameras = None,
        corners: str = "cxcywh",
        score: float = 0.05,
        overlap: float | None = 0.5,
        detections: int = 100,
    ) -> None:
        """Wrap `module`.

        Args:
            module: see above.
            size: (H, W) of the net's input.
            classes: names, or (name, "#rrggbb"), in the order of the scores.
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            camera: what the camera gives; by default RGB of the net's size.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.
            corners: what the four numbers of a box are, "cxcywh" or "xyxy"; of `pred_boxes` always
                the first.
            score: what a detection has at least.
            overlap: intersection over union above which the worse of two boxes of a class goes;
                None where the module suppresses itself. Of `pred_boxes` it is not used: each object
                has one query.
            detections: how many come out at most.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or gives something else.
        """
        self._classes = class_labels(classes)
        camera_input = CameraInput.check(size, None, "rgb", camera, cameras=cameras)
        if corners not in _CORNERS:
            raise ValueError(f"corners: got '{corners}', expected {' or '.join(_CORNERS)}")
        if not 0 <= score < 1:
            raise ValueError(f"score: got {score}, expected 0 to 1")
        if overlap is not None and not 0 < overlap < 1:
            raise ValueError(f"overlap: got {overlap}, expected a share between 0 and 1, or None")
        if type(detections) is not int or not 1 <= detections <= MAX_CANDIDATES:
            raise ValueError(f"detections: got {detections!r}, expected 1 to {MAX_CANDIDATES}")
        graph = _PixelsToBoxes(
            module,
            FrontEnd(camera_input, mean, std),
            len(self._classes),
            corners=corners,
            score=score,
            overlap=overlap,
            detections=detections,
        )
        super().__init__(camera_input, graph, OUTPUTS)
        try_module(self._graph, lambda frame: self._graph.raw(frame)[0], self._camera)

    def settings(self) -> Settings:
        """Return the classes, sizes and camera, for the manifest."""
        return self._settings({"classes": labels_json(self._classes)})

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what chooses among boxes, and what decodes them behind the last layers.

        At 1,000 pixels the steps of float16 are half a pixel.
        """
        nodes = list(graph.graph.node)
        made_by = {name: node for node in nodes for name in node.output}
        behind = set[str]()
        chosen = []
        for node in nodes:
            if node.op_type == "TopK" or behind & set(node.input):
                behind.update(node.output)
                chosen.append(node)
        kept = {node.name: None for node in chosen}
        waiting = [name for node in chosen for name in node.input]
        while waiting:
            found = made_by.get(waiting.pop())
            if found is None or found.name in kept or found.op_type in _NARROW_OPS:
                continue
            kept[found.name] = None
            waiting += found.input
        return [*kept, *self._camera.kept_fp32(graph)]


class _PixelsToBoxes(nn.Module):
    """The fused graph around the user's module."""

    def __init__(
        self,
        module: nn.Module,
        front: FrontEnd,
        classes: int,
        *,
        corners: str,
        score: float,
        overlap: float | None,
        detections: int,
    ) -> None:
        super().__init__()
        self.front, self.module, self.classes = front, module, classes
        self.corners, self.score, self.overlap = corners, score, overlap
        self.detections = detections

    def raw(self, frame: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Return boxes x1 y1 x2 y2 px `[N, A, 4]`, scores `[N, A, C]`, whether to suppress."""
        return self._boxes(self.module(self.front(frame)))

    def _boxes(self, found: object) -> tuple[Tensor, Tensor, bool]:
        logits, shares = (_part(found, name) for name in ("logits", "pred_boxes"))
        if logits is not None and shares is not None:
            is_softmax = logits.shape[-1] == self.classes + 1
            scores = logits.softmax(-1)[..., :-1] if is_softmax else logits.sigmoid()
            self._check(shares, scores)
            height, width = self.front.camera.size
            boxes = shares * shares.new_tensor([width, height, width, height])
            return _with_corners(boxes), scores, False
        if isinstance(found, Tensor) and found.ndim == 3:
            found = found.transpose(1, 2)
            found = found[..., :4], found[..., 4:]
        if not isinstance(found, tuple | list) or len(found) < 2:
            raise ExportError(
                f"the module returns {type(found).__name__}, expected boxes and scores: a tensor "
                f"[N, {4 + self.classes}, anchors], a tuple (boxes, scores), or an object with "
                "logits and pred_boxes"
            )
        boxes, scores = found[0], found[1]
        self._check(boxes, scores)
        boxes = _with_corners(boxes) if self.corners == _CORNERS[0] else boxes
        return boxes, scores, self.overlap is not None

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return self.answer(self.module(self.front(frame)))

    def answer(self, found: object) -> tuple[Tensor, ...]:
        """Return the padded detections of what the net gives."""
        boxes, scores, is_suppressed = self._boxes(found)
        count, places, classes = scores.shape
        placement = self.front.camera.placement
        boxes = clip(boxes, self.front.camera.size, placement.bounds())
        # Of a letterbox: what lies only in its bars has no area left.
        area = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        usable = (scores > self.score) & area[..., None]
        score = torch.where(usable, scores, torch.full_like(scores, -1)).flatten(1)
        overflow = (score > 0).to(torch.int32).sum(-1).to(torch.int32)
        kept = min(MAX_CANDIDATES, places * classes)
        best, chosen = score.topk(kept, dim=1)
        anchors = (chosen // classes)[..., None].expand(count, kept, 4)
        boxes, labels = boxes.gather(1, anchors), chosen % classes + 1
        converged = torch.ones_like(overflow)
        if is_suppressed and self.overlap is not None:
            # Moved apart by class, so that boxes of different classes never overlap.
            apart = labels[..., None].to(boxes.dtype) * float(max(self.front.camera.size) + 1)
            valid = (best > 0).to(best.dtype)
            keep, settled = suppress(boxes + apart, valid, self.overlap)
            best = torch.where(keep > 0, best, torch.full_like(best, -1))
            converged = settled.to(torch.int32)
        least = min(self.detections, kept)
        best, order = best.topk(least, dim=1)
        boxes = placement.boxes(boxes.gather(1, order[..., None].expand(count, least, 4)))
        real = (best > 0).to(best.dtype)
        return (
            boxes * real[..., None],
            (labels.gather(1, order) * real.long()).to(torch.int32),
            best * real,
            real.sum(-1).to(torch.int32),
            overflow,
            converged,
        )

    def _check(self, boxes: Tensor, scores: Tensor) -> None:
        fits = boxes.ndim == 3 and boxes.shape[-1] == 4 and scores.ndim == 3
        if not fits or scores.shape != (*boxes.shape[:2], self.classes):
            raise ExportError(
                f"the module gives boxes {list(boxes.shape)} and scores {list(scores.shape)}, "
                f"expected [N, anchors, 4] and [N, anchors, {self.classes}] for the {self.classes} "
                "classes named. Name one class per score."
            )


def _part(found: object, name: str) -> Tensor | None:
    part = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return part if isinstance(part, Tensor) else None


def _with_corners(boxes: Tensor) -> Tensor:
    """Return x1 y1 x2 y2 of boxes by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def from_module(
    module: nn.Module,
    source: str,
    *,
    size: Size | None,
    classes: ClassNames | None,
    front: Front = NO_FRONT,
) -> Detection:
    """Return the adapter of a user's module; see `registry`."""
    size, classes = need_size_and_classes(source, size, classes)
    return Detection(module, size=size, classes=classes, **front)


def from_card(
    module: nn.Module,
    card: Mapping[str, Any],
    *,
    size: Size | None,
    classes: ClassNames | None,
    front: Front = NO_FRONT,
) -> Detection:
    """Return the adapter of a shipped net; see `registry`."""
    return Detection(
        module,
        size=size or card_size(card),
        classes=classes or card_classes(card),
        **{"mean": card["mean"], "std": card["std"], **front},
    )
