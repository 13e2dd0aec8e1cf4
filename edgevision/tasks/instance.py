"""Instance segmentation on the run side: camera frame in, objects with masks and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Array, Floats, Image
from edgevision.tasks.box_pictures import draw_boxes
from edgevision.tasks.camera import check_same_frame
from edgevision.tasks.objects import FoundObjects, Labels, ObjectDecoder, ObjectTask
from edgevision.tasks.task import Headline, Read
from edgevision.tasks.timings import Timings


@dataclass(frozen=True, slots=True)
class InstanceResult(FoundObjects):
    """What was found in one frame, best first; see `FoundObjects` for its other attributes.

    Attributes:
        masks: float32[N, 28, 28], how likely each cell of the box is the object's; uint8[N, H, W],
            1 where the object is, if the graph was built with masks of the frame.
    """

    masks: Floats | Image

    def _only(self, kept: npt.NDArray[np.bool_]) -> InstanceResult:
        return replace(FoundObjects._only(self, kept), masks=self.masks[kept])

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


class InstanceDecoder(ObjectDecoder):
    """Turns frames into feeds and outputs into `InstanceResult`."""

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> InstanceResult:
        """Return the result of one inference; see `Decoder`."""
        return self.objects(InstanceResult, outputs, timings, masks=outputs["masks"])


class InstanceTask(ObjectTask[InstanceResult]):
    """Objects with masks."""

    name = "instance"
    headline = Headline("mask AP", max_loss=0.01)
    outputs = ("boxes", "labels", "scores", "masks", "count", "overflow", "converged")

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> InstanceDecoder:
        """Return the decoder of one bundle; see `Task`."""
        return InstanceDecoder(*self.described(settings, stages))

    def masks(self, result: InstanceResult) -> dict[str, npt.NDArray[Any]]:
        """Return each object's pixels, in the order of the answer's objects."""
        return {"masks": result.pasted()}

    def class_map(self, result: InstanceResult) -> Labels:
        """Return what each pixel is, its surest object; see `ObjectTask`."""
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
