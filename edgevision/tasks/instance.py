"""Instance segmentation on the run side: camera frame in, objects with masks and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.tasks.box_pictures import draw_boxes
from edgevision.tasks.camera import (
    CameraFrame,
    ClassLabel,
    FrameDecoder,
    Image,
    check_same_frame,
    read_class_labels,
)
from edgevision.tasks.objects import (
    MAX_CANDIDATES,
    Array,
    Floats,
    FoundObjects,
    Labels,
    ObjectTask,
    output_labels,
)
from edgevision.tasks.task import Headline, Read
from edgevision.tasks.timings import Timings


@dataclass(frozen=True, slots=True)
class InstanceResult(FoundObjects):
    """What was found in one frame, best first.

    Attributes:
        boxes: float32[N, 4] x1 y1 x2 y2 in pixels of the frame, host; the caller's own.
        labels: int32[N] indices into `classes`.
        scores: float32[N], 0 to 1.
        masks: float32[N, 28, 28], how likely each cell of the box is the object's; uint8[N, H, W],
            1 where the object is, if the graph was built with masks of the frame.
        classes: the label of each index.
        frame_size: (H, W) of the frame.
        is_exact: whether suppression is certainly the greedy one.
        is_complete: whether no candidate was left out for want of room.
        timings: how long it took.
    """

    boxes: Floats
    labels: Labels
    scores: Floats
    masks: Floats | Image
    classes: tuple[ClassLabel, ...]
    frame_size: tuple[int, int]
    is_exact: bool
    is_complete: bool
    timings: Timings

    def above(self, score: float) -> InstanceResult:
        """Return the objects of at least `score`."""
        kept = self.scores >= score
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            scores=self.scores[kept],
            masks=self.masks[kept],
        )

    def pasted(self, *, threshold: float = 0.5) -> npt.NDArray[np.bool_]:
        """Return bool[N, H, W]: each object's pixels in the frame.

        Masks are resized as torchvision does it: a border of one cell around, then bilinear. Those
        that the graph pasted were cut at 0.5.
        """
        if self.masks.dtype == np.uint8:
            return self.masks > 0
        found = np.zeros((len(self), *self.frame_size), bool)
        for place, box, cells in zip(found, self.boxes, self.masks, strict=True):
            _paste(place, box, cells, threshold)
        return found

    def overlay(self, frame: Image, *, opacity: float = 0.45) -> Image:
        """Return the objects drawn on `frame`, uint8[H, W, 3]: tinted, outlined, boxed and named.

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        check_same_frame(frame, self.frame_size)
        picture = frame.astype(np.float32)
        masks, colors = self.pasted(), self._colors()
        for index in range(len(self) - 1, -1, -1):  # the best on top
            mask, color = masks[index], colors[index]
            picture[mask] = picture[mask] * (1 - opacity) + color * opacity
            picture[_outline(mask)] = color
        return draw_boxes(picture.round().astype(np.uint8), self.boxes, colors, self.captions())


@dataclass(frozen=True, slots=True)
class InstanceDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `InstanceResult`.

    Attributes:
        classes: the label of each index.
        camera: the frame that the graph takes.
    """

    classes: tuple[ClassLabel, ...]
    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> InstanceResult:
        """Return the result of one inference.

        Raises:
            FrameError: the engine gave a class or count that cannot be.
        """
        labels = output_labels(outputs, len(self.classes))
        count = len(labels)
        masks = outputs["masks"][0, :count]
        cells = masks.astype(np.float32) if masks.dtype != np.uint8 else None
        return InstanceResult(
            outputs["boxes"][0, :count].astype(np.float32),
            labels,
            outputs["scores"][0, :count].astype(np.float32),
            masks.astype(np.uint8) if cells is None else cells,
            self.classes,
            self.camera.size,
            bool(outputs["converged"][0]),
            int(outputs["overflow"][0]) <= MAX_CANDIDATES,
            timings,
        )


class InstanceTask(ObjectTask[InstanceResult]):
    """Objects with masks."""

    name = "instance"
    headline = Headline("mask AP", max_loss=0.01)
    outputs = ("boxes", "labels", "scores", "masks", "count", "overflow", "converged")

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> InstanceDecoder:
        """Return the decoder of one bundle; see `Task`."""
        camera = self.read_camera(settings, stages)
        return InstanceDecoder(read_class_labels(settings, self.name), camera)

    def masks(self, result: InstanceResult) -> dict[str, npt.NDArray[Any]]:
        """Return each object's pixels, in the order of the answer's objects."""
        return {"masks": result.pasted()}

    def differs(self, before: InstanceResult, after: InstanceResult) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where the class of the surest object is not the same."""
        found: npt.NDArray[np.bool_] = _class_map(before) != _class_map(after)
        return found


def _class_map(result: InstanceResult) -> npt.NDArray[np.int32]:
    """Return what each pixel is: the class of its surest object and 1, 0 where there is none."""
    sure = result.above(0.5)
    classes = np.zeros(sure.frame_size, np.int32)
    for mask, label in zip(sure.pasted()[::-1], sure.labels[::-1], strict=True):
        classes[mask] = label + 1
    return classes


def _paste(place: npt.NDArray[np.bool_], box: Floats, cells: Floats, threshold: float) -> None:
    """Set the object's pixels in `place`, bool[H, W]."""
    padded = np.pad(cells, 1)
    grown = padded.shape[0] / cells.shape[0]
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width, half_height = (box[2] - box[0]) / 2 * grown, (box[3] - box[1]) / 2 * grown
    x1, y1 = int(centre_x - half_width), int(centre_y - half_height)
    x2, y2 = int(centre_x + half_width), int(centre_y + half_height)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    top, left = max(y1, 0), max(x1, 0)
    bottom, right = min(y2 + 1, place.shape[0]), min(x2 + 1, place.shape[1])
    if bottom <= top or right <= left:
        return
    rows = _weights(padded.shape[0], height)[top - y1 : bottom - y1]
    columns = _weights(padded.shape[1], width)[left - x1 : right - x1]
    place[top:bottom, left:right] = rows @ padded @ columns.T > threshold


def _weights(cells: int, pixels: int) -> Floats:
    """Return float32[pixels, cells]: how much of each cell each pixel is, bilinear, half-pixel."""
    centres = np.clip((np.arange(pixels) + 0.5) * (cells / pixels) - 0.5, 0, cells - 1)
    distance = np.abs(centres[:, None] - np.arange(cells))
    weights: Floats = np.maximum(0.0, 1.0 - distance).astype(np.float32)
    return weights


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the mask's pixels that touch what is not of it."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = mask & ~inner
    return edge


TASK = InstanceTask()
