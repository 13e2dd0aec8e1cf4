"""Detection on the run side: camera frame in, objects with boxes and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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

OUTPUTS = ("boxes", "labels", "scores", "count", "overflow", "converged")
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class DetectionResult(FoundObjects):
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
    labels: Labels
    scores: Floats
    classes: tuple[ClassLabel, ...]
    frame_size: tuple[int, int]
    is_exact: bool
    is_complete: bool
    timings: Timings

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
        return draw_boxes(frame.copy(), self.boxes, self._colors(), self.captions())


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
        labels = output_labels(outputs, len(self.classes))
        count = len(labels)
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


class DetectionTask(ObjectTask[DetectionResult]):
    """Objects with boxes."""

    name = "detection"
    headline = Headline("box AP", max_loss=0.01)
    outputs = OUTPUTS

    def decoder(
        self, settings: Settings, stages: tuple[Stage, ...], read: Read
    ) -> DetectionDecoder:
        """Return the decoder of one bundle; see `Task`."""
        camera = self.read_camera(settings, stages)
        return DetectionDecoder(read_class_labels(settings, self.name), camera)

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
