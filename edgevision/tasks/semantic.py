"""Semantic segmentation on the run side: camera frame in, class map and pictures out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Array, DType, Image
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import (
    CameraFrame,
    ClassLabel,
    FrameDecoder,
    check_same_frame,
    read_class_labels,
)
from edgevision.tasks.camera_task import CameraTask
from edgevision.tasks.task import Headline, Read, Summary
from edgevision.tasks.timings import Timings

_COLOR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """What a segmentation net says of one frame.

    Attributes:
        mask: uint8[H, W] class indices, host; the caller's own copy. 255 where the camera was given
            a region, and the pixel is outside.
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

    def summary(self) -> Summary:
        """Return the four largest classes, and the share of every class."""
        shares = self.shares()
        text = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:4])
        return Summary(text, {"shares": shares})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the overlay, and the class map itself."""
        return {".overlay.jpg": self.overlay(frame), ".classes.png": self.mask}

    def shares(self) -> dict[str, float]:
        """Return each class's share of what was looked at, largest first."""
        found = np.bincount(self.mask.ravel(), minlength=256)
        counts = found[: len(self.classes)]
        total = max(int(counts.sum()), 1)
        named = ((c.name, int(n) / total) for c, n in zip(self.classes, counts, strict=True))
        return dict(sorted(((k, v) for k, v in named if v > 0), key=lambda item: -item[1]))


@dataclass(frozen=True, slots=True)
class SemanticDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `SemanticResult`.

    Attributes:
        classes: the label of each index.
        camera: the frame that the graph takes.
        label_map: the class of each number or colour `#rrggbb` in label files, where they have
            others than the classes; others are void.
        ignore_index: the number in label files that is void beside 255.
    """

    classes: tuple[ClassLabel, ...]
    camera: CameraFrame
    label_map: Mapping[str, int] = field(default_factory=dict)
    ignore_index: int | None = None

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> SemanticResult:
        """Return the result of one inference; see `Decoder`."""
        (mask,) = outputs.values()
        mask = mask[0].astype(np.uint8, copy=False)
        looked_at = mask
        if self.camera.region is not None:
            top, left, height, width = self.camera.region
            looked_at = mask[top : top + height, left : left + width]
        if (highest := int(looked_at.max())) >= len(self.classes):
            raise FrameError(
                f"the engine gave class {highest}, the bundle names {len(self.classes)}. "
                "Run `edgevision verify` on the bundle."
            )
        return SemanticResult(mask, self.classes, timings)


class SemanticTask(CameraTask[SemanticResult]):
    """A class for each pixel; held against its reference label by label."""

    name = "semantic"
    headline = Headline("mIoU", max_loss=0.01)
    picture_endings = (".overlay.jpg", ".classes.png")

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> SemanticDecoder:
        """Return the decoder of one bundle; see `Task`."""
        stage, camera = self.read_camera(settings, stages, outputs=1)
        mask = stage.outputs[0]
        if mask.shape != (1, *camera.size) or mask.dtype is not DType.UINT8:
            raise BundleFormatError(
                f"task semantic: expected a frame of {camera.layout} -> uint8[1, H, W], "
                f"got {stage.inputs[0]} -> {mask}"
            )
        classes = read_class_labels(settings, self.name)
        label_map, ignored = settings.get("label_map", {}), settings.get("ignore_index")
        if not isinstance(label_map, dict) or not isinstance(ignored, int | None):
            raise BundleFormatError("task semantic: label_map or ignore_index is of another kind")
        try:
            checked = check_label_map(label_map, [label.name for label in classes])
        except ValueError as error:
            raise BundleFormatError(f"task semantic: {error}") from error
        return SemanticDecoder(classes, camera, checked, ignored)

    def masks(self, result: SemanticResult) -> dict[str, npt.NDArray[Any]]:
        """Return the class of each pixel."""
        return {"classes": result.mask}

    def differs(self, before: SemanticResult, after: SemanticResult) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where the classes are not the same."""
        found: npt.NDArray[np.bool_] = before.mask != after.mask
        return found


def check_label_map(given: Mapping[Any, Any], names: Sequence[str]) -> dict[str, int]:
    """Return the class of each number (as text) or colour `#rrggbb` in label files.

    Args:
        given: the index or the name of a class, by number or colour.
        names: of the classes.

    Raises:
        ValueError: one is neither.
    """
    found = {}
    for key, value in given.items():
        text = str(key).lower()
        index = names.index(value) if value in names else value
        is_number = text.isdecimal() and len(text) < 4 and int(text) < 256
        is_class = type(index) is int and 0 <= index < len(names)
        if not (is_number or _COLOR.fullmatch(text)) or not is_class:
            raise ValueError(
                f"label_map: got {key}={value}, expected a number 0 to 255 or a colour #rrggbb, "
                f"and a class's name or index, 0 to {len(names) - 1}"
            )
        found[text] = int(index)
    return found


def _palette(classes: tuple[ClassLabel, ...]) -> Image:
    colors = np.zeros((256, 3), np.uint8)  # black where the net did not look
    colors[: len(classes)] = [list(bytes.fromhex(c.color[1:])) for c in classes]
    return colors


TASK = SemanticTask()
