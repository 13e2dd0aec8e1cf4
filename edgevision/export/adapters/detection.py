"""A detector with its pixels: camera frame in, the best boxes out, one graph without plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.errors import ExportError
from edgevision.export.adapters.detections import Detections, clip
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
from edgevision.export.adapters.instance import check, is_two_stage, read_settings
from edgevision.export.adapters.one_stage import OneStage, Says, is_one_stage, says_of
from edgevision.export.adapters.output import try_module
from edgevision.export.adapters.registry import ClassNames, Given, Size, refuse_options
from edgevision.export.adapters.suppression import same, suppress
from edgevision.export.graph.capture import evaluating
from edgevision.export.zoo import card_classes, card_size
from edgevision.tasks.detection import OUTPUTS, TASK
from edgevision.tasks.objects import MAX_CANDIDATES

_CORNERS = ("cxcywh", "xyxy")
_LARGEST_STRIDE = 32
_FROM_CARD = ("mean", "std", "corners", "score", "overlap", "detections")
_PLAIN = Says(IMAGENET_MEAN, IMAGENET_STD)
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "Relu")
_NARROW_OPS = (*_LAYERS, "MatMul", "LayerNormalization", "Resize")


class Detection(FrameAdapter[nn.Module]):
    """Adapter of a detector, or of any module that gives boxes and scores.

    The module is torchvision's Faster R-CNN, RetinaNet, FCOS, SSD or SSDLite, which say themselves
    what their pictures and thresholds are; or it gives one of:

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
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        camera: Camera | None = None,
        cameras: Cameras = None,
        corners: str | None = None,
        score: float | None = None,
        overlap: float | None = None,
        detections: int | None = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: see above.
            size: (H, W) of the net's input; of torchvision's, what its own resizing would give.
            classes: names, or (name, "#rrggbb"), in the order of the scores, without a background.
            mean: per channel on the 0-1 scale, in RGB; by default the module's own or ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default the module's own or ImageNet's.
            camera: what the camera gives; by default RGB of the net's size.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.
            corners: what the four numbers of a raw box are, "cxcywh" (the default) or "xyxy".
            score: what a detection has at least; by default the module's own or 0.05.
            overlap: intersection over union above which the worse of two boxes of a class goes; by
                default the module's own or 0.5, and 1 where the module suppresses itself. Of
                `pred_boxes` it is not used: each object has one query.
            detections: how many come out at most; by default the module's own or 100.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or gives something else.
        """
        self._classes = class_labels(classes)
        camera_input = CameraInput.check(size, None, "rgb", camera, cameras=cameras)
        self._is_two_stage = is_two_stage(module)
        says = _says(module)
        if says is not _PLAIN:
            refuse_options("torchvision's detectors", mean=mean, std=std, corners=corners)
        given: dict[str, Any] = {
            "mean": mean, "std": std, "corners": corners, "score": score, "overlap": overlap,
            "detections": detections,
        }  # fmt: skip
        says = replace(says, **{name: x for name, x in given.items() if x is not None})
        _check(says, camera_input)
        super().__init__(camera_input, self._fused_graph(module, says, camera_input), OUTPUTS)

    def _fused_graph(self, module: nn.Module, says: Says, camera: CameraInput) -> nn.Module:
        count = len(self._classes)
        if self._is_two_stage:
            settings = replace(
                read_settings(module),
                score=says.score, overlap=says.overlap, detections=says.detections,
            )  # fmt: skip
            check(module, settings, count, has_masks=False)
            with evaluating(module):
                return Detections(module, settings, camera, masks="none")
        if is_one_stage(module):
            module = OneStage(module, camera.size, count)
        graph = _PixelsToBoxes(module, FrontEnd(camera, says.mean, says.std), count, says)
        try_module(graph, lambda frame: graph.raw(frame)[0], camera)
        return graph

    def settings(self) -> Settings:
        """Return the classes, sizes and camera, for the manifest."""
        return self._settings({"classes": labels_json(self._classes)})

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what chooses among boxes, and what decodes them behind the last layers.

        At 1,000 pixels the steps of float16 are half a pixel. What a net of queries chooses for
        itself, in front of its last layers, is the net's.
        """
        nodes = list(graph.graph.node)
        made_by = {name: node for node in nodes for name in node.output}
        choices = {node.name for node in nodes if node.op_type == "TopK"}
        own = choices if self._is_two_stage else choices - _in_front_of_layers(graph)
        behind = set[str]()
        chosen = []
        for node in nodes:
            if node.name in own or behind & set(node.input):
                behind.update(node.output)
                if not (self._is_two_stage and node.op_type in _LAYERS):
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


def _in_front_of_layers(graph: onnx.ModelProto) -> set[str]:
    """Return the nodes' names whose values reach a layer with weights."""
    weights = {array.name for array in graph.graph.initializer}
    reached, found = set[str](), set[str]()
    for node in reversed(graph.graph.node):
        is_layer = node.op_type in _NARROW_OPS and not weights.isdisjoint(node.input)
        if not reached.isdisjoint(node.output):
            found.add(node.name)
            is_layer = True
        if is_layer:
            reached.update(node.input)
    return found


def _says(module: nn.Module) -> Says:
    """Return what a module says of itself, or what is usual."""
    if is_two_stage(module):
        own = read_settings(module)
        whole = _LARGEST_STRIDE
        return Says(own.mean, own.std, "xyxy", own.score, own.overlap, own.detections, whole=whole)
    return says_of(module) if is_one_stage(module) else _PLAIN


def _check(says: Says, camera: CameraInput) -> None:
    """Refuse what makes no sense."""
    if says.corners not in _CORNERS:
        raise ValueError(f"corners: got '{says.corners}', expected {' or '.join(_CORNERS)}")
    if not 0 <= says.score < 1:
        raise ValueError(f"score: got {says.score}, expected 0 to 1")
    if not 0 < says.overlap <= 1:
        raise ValueError(f"overlap: got {says.overlap}, expected a share, or 1 to keep all")
    if type(says.detections) is not int or not 1 <= says.detections <= MAX_CANDIDATES:
        raise ValueError(f"detections: got {says.detections!r}, expected 1 to {MAX_CANDIDATES}")
    if any(side % says.whole for side in camera.size):
        height, width = (-(-side // says.whole) * says.whole for side in camera.size)
        raise ValueError(
            f"size: got {camera.size}, both sides must be divisible by {says.whole}; take "
            f"({height}, {width}), and say by camera= what the camera gives"
        )


class _PixelsToBoxes(nn.Module):
    """The fused graph around the user's module."""

    def __init__(
        self,
        module: nn.Module,
        front: FrontEnd,
        classes: int,
        says: Says,
    ) -> None:
        super().__init__()
        self.front, self.module, self.classes, self.says = front, module, classes, says

    def raw(self, frame: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Return boxes x1 y1 x2 y2 px `[N, A, 4]`, scores `[N, A, C]`, whether to suppress."""
        return self._boxes(self.module(self.front(frame)))

    def _boxes(self, found: object) -> tuple[Tensor, Tensor, bool]:
        logits, shares = (_part(found, name) for name in ("logits", "pred_boxes"))
        if logits is not None and shares is not None:
            is_softmax = logits.shape[-1] == self.classes + 1
            scores = logits.softmax(-1)[..., :-1] if is_softmax else logits.sigmoid()
            if is_softmax:  # a query is one object: of its classes only the best counts
                scores = scores * (scores >= scores.amax(-1, keepdim=True))
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
        boxes = _with_corners(boxes) if self.says.corners == _CORNERS[0] else boxes
        return boxes, scores, self.says.overlap < 1

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return self.answer(self.module(self.front(frame)))

    def answer(self, found: object) -> tuple[Tensor, ...]:
        """Return the padded detections of what the net gives."""
        boxes, scores, is_suppressed = self._boxes(found)
        placement = self.front.camera.placement
        boxes = clip(boxes, self.front.camera.size, placement.bounds())
        # Of a letterbox: what lies only in its bars has no area left.
        area = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        usable = (scores > self.says.score) & area[..., None]
        score = torch.where(usable, scores, torch.full_like(scores, -1))
        overflow = (score > 0).to(torch.int32).sum((1, 2)).to(torch.int32)
        if score.shape[1] > MAX_CANDIDATES:
            # The best pairs of place and class lie in the places whose best class is best.
            _, chosen = score.amax(-1).topk(MAX_CANDIDATES, dim=1)
            boxes, score = (_at(chosen, x) for x in (boxes, score))
        _, places, classes = score.shape
        kept = min(MAX_CANDIDATES, places * classes)
        best, chosen = score.flatten(1).topk(kept, dim=1)
        boxes, labels = _at(chosen // classes, boxes), chosen % classes + 1
        converged = torch.ones_like(overflow)
        if is_suppressed:
            valid = (best > 0).to(best.dtype)
            if self.says.of_class is not None and self.says.of_class < kept:
                better = torch.triu(same(labels).to(best.dtype), diagonal=1).sum(-2)
                valid = valid * (better < self.says.of_class).to(best.dtype)
            keep, settled = suppress(boxes, valid, self.says.overlap, labels)
            best = torch.where(keep > 0, best, torch.full_like(best, -1))
            converged = settled.to(torch.int32)
        least = min(self.says.detections, kept)
        best, order = best.topk(least, dim=1)
        boxes = placement.boxes(_at(order, boxes))
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


def _at(index: Tensor, rows: Tensor) -> Tensor:
    """Return `rows: [N, A, K]` at `index: int64[N, B]`."""
    return rows.gather(1, index[..., None].expand(*index.shape, rows.shape[-1]))


def _part(found: object, name: str) -> Tensor | None:
    part = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return part if isinstance(part, Tensor) else None


def _with_corners(boxes: Tensor) -> Tensor:
    """Return x1 y1 x2 y2 of boxes by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def recognises(module: nn.Module) -> bool:
    """Return whether `module` is built as torchvision's detectors are, without masks."""
    return is_one_stage(module) or is_two_stage(module)


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> Detection:
    """Return the adapter of a shipped net; see `registry`."""
    own = {"size": card_size(card), "classes": card_classes(card)}
    own |= {name: card[name] for name in _FROM_CARD if name in card}
    return Detection(module, **{**own, **given})


ADAPTER = Detection
