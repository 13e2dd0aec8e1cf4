"""Semantic segmentation on the run side: camera frame in, class map and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import DType
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import (
    ClassLabel,
    Image,
    check_same_frame,
    classes_of,
    feed_of,
    order_of,
)
from edgevision.tasks.timings import Timings

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """What a segmentation net says of one frame.

    Attributes:
        mask: uint8[H, W] class indices, host; the caller's own copy.
        classes: the label of each index.
        timings: how long it took.
    """

    mask: Image
    classes: tuple[ClassLabel, ...]
    timings: Timings

    def colored(self) -> Image:
        """Return the mask in the classes' colours, uint8[H, W, 3] RGB."""
        return np.take(_palette(self.classes), self.mask, axis=0)

    def overlay(self, frame: Image, *, opacity: float = 0.5) -> Image:
        """Return the colours laid over `frame`, uint8[H, W, 3] RGB.

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the mask's size.
            ValueError: `opacity` is not 0 to 1.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity: got {opacity}, expected 0 to 1")
        height, width = self.mask.shape
        check_same_frame(frame, (height, width), was="segmented")
        weight = round(opacity * 256)
        blend = frame.astype(np.uint16) * (256 - weight) + self.colored() * np.uint16(weight)
        return (blend >> 8).astype(np.uint8)

    def shares(self) -> dict[str, float]:
        """Return each class's share of the frame, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        named = (
            (c.name, int(n) / self.mask.size) for c, n in zip(self.classes, counts, strict=True)
        )
        return dict(sorted(((k, v) for k, v in named if v > 0), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class SemanticTask:
    """Turns frames into feeds and outputs into `SemanticResult`.

    Attributes:
        classes: the label of each index.
        frame_size: (H, W) of the frame that the graph takes.
        channel_order: "rgb" or "bgr", the order in which the graph takes the frame's channels.
        input_name: the graph's name for the frame.
    """

    classes: tuple[ClassLabel, ...]
    frame_size: tuple[int, int]
    channel_order: str
    input_name: str

    @staticmethod
    def from_manifest(settings: Settings, stages: tuple[Stage, ...]) -> SemanticTask:
        """Read the task's settings.

        Raises:
            BundleFormatError: they are not those of this task, or do not fit the graph.
        """
        if len(stages) != 1 or len(stages[0].inputs) != 1 or len(stages[0].outputs) != 1:
            raise BundleFormatError("task semantic: expected one stage with one input, one output")
        frame, mask = stages[0].inputs[0], stages[0].outputs[0]
        height, width = frame.shape[1:3] if len(frame.shape) == 4 else (0, 0)
        fits = frame.shape == (1, height, width, 3) and mask.shape == (1, height, width)
        if not fits or frame.dtype is not DType.UINT8 or mask.dtype is not DType.UINT8:
            raise BundleFormatError(
                "task semantic: expected uint8[1, H, W, 3] -> uint8[1, H, W], "
                f"got {frame} -> {mask}"
            )
        order, classes = order_of(settings, "semantic"), classes_of(settings, "semantic")
        return SemanticTask(classes, (height, width), order, frame.name)

    def feeds(self, frame: Image) -> dict[str, object]:
        """Return `frame: uint8[H, W, 3]` as the graph takes it (a view)."""
        return feed_of(frame, self.input_name, self.frame_size, self.channel_order)

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> SemanticResult:
        """Return the result of one inference.

        Raises:
            FrameError: the engine gave a class that the labels do not know.
        """
        (mask,) = outputs.values()
        mask = mask[0].astype(np.uint8, copy=False)
        if int(mask.max()) >= len(self.classes):
            raise FrameError(
                f"the engine gave class {int(mask.max())}, the bundle names {len(self.classes)}. "
                "Run `edgevision verify` on the bundle."
            )
        return SemanticResult(mask, self.classes, timings)


def _palette(classes: tuple[ClassLabel, ...]) -> Image:
    return np.array([list(bytes.fromhex(c.color[1:])) for c in classes], np.uint8)
