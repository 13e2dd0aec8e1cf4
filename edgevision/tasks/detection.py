"""Detection on the run side: camera frame in, objects with boxes and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
from edgevision.tasks.matching import distances
from edgevision.tasks.proof import Arrays, Bars, held_at_zero
from edgevision.tasks.task import Headline, Read, Summary
from edgevision.tasks.timings import Timings

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

OUTPUTS = ("boxes", "labels", "scores", "count", "overflow", "converged")
MAX_CANDIDATES = 1000
_DISTANCES = {
    "labels": Bars(0.0, 0.0, 0.0),
    "boxes": Bars(0.01, 0.1, 0.3),
    "scores": Bars(1e-3, 0.05, 0.3),
}
_SHARES = Bars(0.02, 0.05, 0.2)
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What was found in one frame, best first.

    Attributes:
        boxes: float32[N, 4] x1 y1 x2 y2 in pixels of the frame, host; the caller's own.
        labels: int32[N] indices into `classes`.
        scores: float32[N], 0 to 1.
        classes: the label of each index.
        frame_size: (H, W) of the frame.
        is_exact: whether suppression is certainly the greedy one.
        is_complete: whether no candidate was left out for want of room.
        timings: how long it took.
    """

    boxes: Floats
    labels: npt.NDArray[np.int32]
    scores: Floats
    classes: tuple[ClassLabel, ...]
    frame_size: tuple[int, int]
    is_exact: bool
    is_complete: bool
    timings: Timings

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.boxes)

    def above(self, score: float) -> DetectionResult:
        """Return the objects of at least `score`."""
        kept = self.scores >= score
        return replace(
            self, boxes=self.boxes[kept], labels=self.labels[kept], scores=self.scores[kept]
        )

    def overlay(self, frame: Image) -> Image:
        """Return the objects boxed and named on `frame`, uint8[H, W, 3].

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        check_same_frame(frame, self.frame_size)
        palette = [
            np.frombuffer(bytes.fromhex(c.color[1:]), np.uint8).astype(np.float32)
            for c in self.classes
        ]
        colors = [palette[label] for label in self.labels]
        return draw_boxes(frame.copy(), self.boxes, colors, self.captions())

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


@dataclass(frozen=True, slots=True)
class DetectionDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `DetectionResult`.

    Attributes:
        classes: the label of each index.
        camera: the frame that the graph takes.
    """

    classes: tuple[ClassLabel, ...]
    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> DetectionResult:
        """Return the result of one inference.

        Raises:
            FrameError: the engine gave a class or count that cannot be.
        """
        count = int(outputs["count"][0])
        labels = outputs["labels"][0, : max(count, 0)].astype(np.int32) - 1
        if not 0 <= count <= outputs["boxes"].shape[1] or (
            count and not 0 <= labels.min() <= labels.max() < len(self.classes)
        ):
            raise FrameError(
                f"the engine gave {count} objects of classes {sorted(set(labels.tolist()))}, the "
                f"bundle names {len(self.classes)}. Run `edgevision verify` on the bundle."
            )
        return DetectionResult(
            outputs["boxes"][0, :count].astype(np.float32),
            labels,
            outputs["scores"][0, :count].astype(np.float32),
            self.classes,
            self.camera.size,
            bool(outputs["converged"][0]),
            int(outputs["overflow"][0]) <= MAX_CANDIDATES,
            timings,
        )


class DetectionTask(CameraTask[DetectionResult]):
    """Objects with boxes; those of both sides are paired before they are compared."""

    name = "detection"
    headline = Headline("box AP", max_loss=0.01)

    def decoder(
        self, settings: Settings, stages: tuple[Stage, ...], read: Read
    ) -> DetectionDecoder:
        """Return the decoder of one bundle; see `Task`."""
        if len(stages) != 1 or len(stages[0].inputs) != 1:
            raise BundleFormatError("task detection: expected one stage with one input")
        (frame,), outputs = stages[0].inputs, stages[0].outputs
        if tuple(spec.name for spec in outputs) != OUTPUTS:
            raise BundleFormatError(
                f"task detection: expected a frame -> {', '.join(OUTPUTS)}; got {frame} -> "
                f"{', '.join(map(str, outputs))}"
            )
        camera = CameraFrame.from_manifest(frame, settings, self.name)
        return DetectionDecoder(classes_of(settings, self.name), camera)

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
        return held_at_zero(found, {key: tolerances[key] for key in found}, name=name)

    def golden_fault(self, golden: Arrays) -> str | None:
        """Return why these answers prove nothing: there is no object in any."""
        if distances(golden, golden)["labels"].size:
            return None
        return (
            "the model finds no object in any sample, which proves nothing about a graph. Give "
            "frames that show its classes: --calibration DIR or --evaluate DIR."
        )

    def differs(self, before: DetectionResult, after: DetectionResult) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where the class of the surest object's box is not the same."""
        found: npt.NDArray[np.bool_] = _class_map(before) != _class_map(after)
        return found


def _class_map(result: DetectionResult) -> npt.NDArray[np.int32]:
    """Return what each pixel is in: the class of its surest box and 1, 0 where there is none."""
    sure = result.above(_SURE)
    classes = np.zeros(sure.frame_size, np.int32)
    for box, label in zip(sure.boxes[::-1].astype(int), sure.labels[::-1], strict=True):
        x1, y1, x2, y2 = box.tolist()
        classes[y1 : y2 + 1, x1 : x2 + 1] = label + 1
    return classes


TASK = DetectionTask()
