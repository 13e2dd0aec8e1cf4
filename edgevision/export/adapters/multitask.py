"""One net with several heads: one camera frame in, the answer of every head out, one graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.reading import JsonValue
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import ModelAdapter
from edgevision.export.adapters.depth import Depth
from edgevision.export.adapters.detection import Detection
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.registry import ClassNames, Size
from edgevision.export.adapters.semantic import SemanticSegmentation
from edgevision.export.graph.capture import evaluating
from edgevision.tasks.multitask import MAX_HEADS, TASK, output_name

_HEAD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


class Head(Protocol):
    """What one head says, and how its answer is made of what the module gives under its name."""

    def adapt(self, module: nn.Module, **shared: Any) -> ModelAdapter:
        """Return the adapter of the head as if it were alone; `module` gives its part only."""


@dataclass(frozen=True, slots=True)
class SemanticHead:
    """Logits of classes for each pixel; see `SemanticSegmentation`."""

    classes: ClassNames

    def adapt(self, module: nn.Module, **shared: Any) -> SemanticSegmentation:
        """Return the adapter of only the head."""
        return SemanticSegmentation(module, classes=self.classes, **shared)


@dataclass(frozen=True, slots=True)
class DepthHead:
    """One number for each pixel; see `Depth`."""

    scale: float = 1.0
    max_m: float | None = None
    output: str = "float32"

    def adapt(self, module: nn.Module, **shared: Any) -> Depth:
        """Return the adapter of only the head."""
        return Depth(module, scale=self.scale, max_m=self.max_m, output=self.output, **shared)


@dataclass(frozen=True, slots=True)
class DetectionHead:
    """Boxes and scores; see `Detection`."""

    classes: ClassNames
    corners: str | None = None
    score: float | None = None
    overlap: float | None = None
    detections: int | None = None

    def adapt(self, module: nn.Module, **shared: Any) -> Detection:
        """Return the adapter of only the head."""
        return Detection(
            module,
            classes=self.classes,
            corners=self.corners,
            score=self.score,
            overlap=self.overlap,
            detections=self.detections,
            **shared,
        )


class MultiTask(FrameAdapter["_PixelsToAnswers"]):
    """Adapter of a module that gives a dict, one entry a head, of one picture.

    The graph runs the module once and gives HEAD.TASK.NAME for every output of every head. The
    module is used, never changed.

    Example:
        >>> net = MultiTask(module, size=(384, 640), heads={
        ...     "road": SemanticHead(["road", "sky"]), "depth": DepthHead(max_m=80),
        ... })  # doctest: +SKIP
    """

    task = TASK.name

    def __init__(
        self,
        module: nn.Module,
        *,
        size: Size,
        heads: Mapping[str, Head],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        camera: Camera | None = None,
        cameras: Cameras = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: gives a dict (or an object) with an entry (or attribute) for each head.
            size: (H, W) of the net's input.
            heads: what each entry is.
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            camera: what the camera gives; by default RGB of the net's size.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or does not give what a head needs.
        """
        if not 1 <= len(heads) <= MAX_HEADS or not all(map(_HEAD.fullmatch, heads)):
            raise ValueError(
                f"heads: got {list(heads)}, expected 1 to {MAX_HEADS} names of letters, digits, _"
            )
        camera_input = CameraInput.check(size, None, "rgb", camera, cameras=cameras)
        shared = {"size": size, "mean": mean, "std": std, "camera": camera, "cameras": cameras}
        self.heads: Mapping[str, Any] = {
            name: head.adapt(_Part(module, name), **shared) for name, head in heads.items()
        }
        graph = _PixelsToAnswers(module, FrontEnd(camera_input, mean, std), self.heads)
        black = camera_input.zeros().numpy()
        with evaluating(graph):
            alone = {n: h.reference({"frame": black}) for n, h in self.heads.items()}
        outputs = [
            output_name(head, self.heads[head].task, name)
            for head, found in alone.items()
            for name in found
            if name not in self.heads[head].state.values()
        ]
        super().__init__(camera_input, graph, outputs)

    def settings(self) -> Settings:
        """Return the camera, and each head's task with what is its own, for the manifest."""
        shared = self._settings({})
        heads: dict[str, JsonValue] = {
            name: {
                "task": head.task,
                "settings": {k: v for k, v in head.settings().items() if k not in shared},
            }
            for name, head in self.heads.items()
        }
        return {**shared, "heads": heads}

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what any head keeps."""
        return [name for head in self.heads.values() for name in head.kept_fp32(graph)]


class _Part(nn.Module):
    """What a module gives under one name."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, x: Tensor) -> object:
        return _entry(self.module(x), self.name)


class _PixelsToAnswers(nn.Module):
    """The fused graph: the module runs once, and each head makes its answer of its part."""

    def __init__(self, module: nn.Module, front: FrontEnd, heads: Mapping[str, Any]) -> None:
        super().__init__()
        self.front, self.module = front, module
        self.names = tuple(heads)
        self.answers = nn.ModuleList(head.fused for head in heads.values())

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        found = self.module(self.front(frame))
        answers: list[Tensor] = []
        for name, head in zip(self.names, self.answers, strict=True):
            answer = head.answer(_entry(found, name))  # type: ignore[operator]
            answers += [answer] if isinstance(answer, Tensor) else answer
        return tuple(answers)


def _entry(found: object, name: str) -> object:
    if isinstance(found, Mapping) and name in found:
        entry: object = found[name]
        return entry
    if hasattr(found, name):
        return getattr(found, name)
    has = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
    raise ExportError(f"the module gives {has:.200}, and no '{name}'. Name heads as it does.")


ADAPTER = MultiTask
MODULE_REASON = (
    "a net of several heads says what they are; let the factory return "
    "edgevision.export.MultiTask(module, size=..., heads=...)"
)
