"""Detection on the run side: camera frame in, objects with boxes and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Array, Image
from edgevision.tasks.box_pictures import draw_boxes
from edgevision.tasks.camera import check_same_frame
from edgevision.tasks.objects import FoundObjects, Labels, ObjectDecoder, ObjectTask
from edgevision.tasks.task import Headline, Read
from edgevision.tasks.timings import Timings

OUTPUTS = ("boxes", "labels", "scores", "count", "overflow", "converged")
_SURE = 0.5


@dataclass(frozen=True, slots=True)
class DetectionResult(FoundObjects):
    """What was found in one frame, best first; see `FoundObjects` for its attributes."""

    def overlay(self, frame: Image) -> Image:
        """Return the objects boxed and named on `frame`, uint8[H, W, 3].

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        check_same_frame(frame, self.frame_size)
        return draw_boxes(frame.copy(), self.boxes, self._colors(), self.captions())


class DetectionDecoder(ObjectDecoder):
    """Turns frames into feeds and outputs into `DetectionResult`."""

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> DetectionResult:
        """Return the result of one inference; see `Decoder`."""
        return self.objects(DetectionResult, outputs, timings)


class DetectionTask(ObjectTask[DetectionResult]):
    """Objects with boxes."""

    name = "detection"
    headline = Headline("box AP", max_loss=0.01)
    outputs = OUTPUTS

    def decoder(
        self, settings: Settings, stages: tuple[Stage, ...], read: Read
    ) -> DetectionDecoder:
        """Return the decoder of one bundle; see `Task`."""
        return DetectionDecoder(*self.described(settings, stages))

    def class_map(self, result: DetectionResult) -> Labels:
        """Return what each pixel is in, its surest box; see `ObjectTask`."""
        sure = result.above(_SURE)
        classes = np.zeros(sure.frame_size, np.int32)
        for box, label in zip(sure.boxes[::-1].astype(int), sure.labels[::-1], strict=True):
            x1, y1, x2, y2 = box.tolist()
            classes[y1 : y2 + 1, x1 : x2 + 1] = label + 1
        return classes


TASK = DetectionTask()
