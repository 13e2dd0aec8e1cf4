"""Instance segmentation on the run side: camera frame in, objects with masks and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.box_pictures import draw_boxes
from edgevision.tasks.camera import (
    CameraFrame,
    ClassLabel,
    FrameDecoder,
    Image,
    check_same_frame,
    classes_of,
)
from edgevision.tasks.camera_task import CameraTask
from edgevision.tasks.matching import MATCHED, distances
from edgevision.tasks.proof import Arrays, Bars, held_at_zero
from edgevision.tasks.task import Headline, Read, Summary
from edgevision.tasks.timings import Timings

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

_OUTPUTS = ("boxes", "labels", "scores", "masks", "count", "overflow", "converged")
_MAX_CANDIDATES = 1000
# Paired by `matching`: how far two objects may be apart, and the share that may be further.
_DISTANCES = {
    "labels": Bars(0.0, 0.0, 0.0),
    "boxes": Bars(0.01, 0.1, 0.3),
    "scores": Bars(1e-3, 0.05, 0.3),
    "masks": Bars(1e-2, 0.05, 0.2),
}
_SHARES = Bars(0.02, 0.05, 0.2)


@dataclass(frozen=True, slots=True)
class InstanceResult:
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
    labels: npt.NDArray[np.int32]
    scores: Floats
    masks: Floats | Image
    classes: tuple[ClassLabel, ...]
    frame_size: tuple[int, int]
    is_exact: bool
    is_complete: bool
    timings: Timings

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.boxes)

    def above(self, score: float) -> InstanceResult:
        """Return the objects of at least `score`."""
        kept = self.scores >= score
        return InstanceResult(
            self.boxes[kept],
            self.labels[kept],
            self.scores[kept],
            self.masks[kept],
            self.classes,
            self.frame_size,
            self.is_exact,
            self.is_complete,
            self.timings,
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
        masks = self.pasted()
        for index in range(len(self) - 1, -1, -1):  # the best on top
            mask, color = masks[index], self._color(index)
            picture[mask] = picture[mask] * (1 - opacity) + color * opacity
            picture[_outline(mask)] = color
        colors = [self._color(index) for index in range(len(self))]
        return draw_boxes(picture.round().astype(np.uint8), self.boxes, colors, self.captions())

    def summary(self) -> Summary:
        """Return the first six objects, and all of them with their boxes."""
        found = [
            {"label": self.classes[label].name, "score": score, "box": box}
            for label, score, box in zip(
                self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True
            )
        ]
        return Summary(", ".join(self.captions()[:6]) or "nothing", {"objects": found})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the overlay."""
        return {".overlay.jpg": self.overlay(frame)}

    def captions(self) -> list[str]:
        """Return "car 0.93" for each object."""
        return [
            f"{self.classes[label].name} {score:.2f}"
            for label, score in zip(self.labels, self.scores, strict=True)
        ]

    def _color(self, index: int) -> Floats:
        text = self.classes[self.labels[index]].color
        return np.frombuffer(bytes.fromhex(text[1:]), np.uint8).astype(np.float32)


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
        count = int(outputs["count"][0])
        labels = outputs["labels"][0, :count].astype(np.int32) - 1
        if not 0 <= count <= outputs["boxes"].shape[1] or (
            count and not 0 <= labels.min() <= labels.max() < len(self.classes)
        ):
            raise FrameError(
                f"the engine gave {count} objects of classes {sorted(set(labels.tolist()))}, the "
                f"bundle names {len(self.classes)}. Run `edgevision verify` on the bundle."
            )
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
            int(outputs["overflow"][0]) <= _MAX_CANDIDATES,
            timings,
        )


class InstanceTask(CameraTask[InstanceResult]):
    """Objects with masks; those of both sides are paired before they are compared."""

    name = "instance"
    headline = Headline("mask AP", max_loss=0.01)

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> InstanceDecoder:
        """Return the decoder of one bundle; see `Task`."""
        if len(stages) != 1 or len(stages[0].inputs) != 1:
            raise BundleFormatError("task instance: expected one stage with one input")
        (frame,), outputs = stages[0].inputs, stages[0].outputs
        if tuple(spec.name for spec in outputs) != _OUTPUTS:
            raise BundleFormatError(
                f"task instance: expected uint8[1, H, W, 3] -> {', '.join(_OUTPUTS)}; got {frame} "
                f"-> {', '.join(map(str, outputs))}"
            )
        camera = CameraFrame.from_manifest(frame, settings, self.name)
        return InstanceDecoder(classes_of(settings, self.name), camera)

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return how far paired objects may be apart."""
        share = _SHARES[form]
        return {name: Tolerance(bars[form], share) for name, bars in _DISTANCES.items()}

    def compare(
        self,
        reference: Arrays,
        candidate: Arrays,
        tolerances: Mapping[str, Tolerance],
        *,
        name: str,
    ) -> list[ParityReport]:
        """Pair the objects of both sides and hold their distances; see `matching`.

        Raises:
            ValueError: nothing was detected that could be compared.
        """
        found = distances(reference, candidate)
        if not found["labels"].size:
            raise ValueError(f"{name}: neither side detects anything on the golden samples")
        return held_at_zero(found, {k: tolerances[k] for k in MATCHED}, name=name)

    def golden_fault(self, golden: Arrays) -> str | None:
        """Return why these answers prove nothing: there is no object in any."""
        if distances(golden, golden)["labels"].size:
            return None
        return (
            "the model finds no object in any sample, which proves nothing about a graph. Give "
            "frames that show its classes: --calibration DIR or --evaluate DIR."
        )

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
