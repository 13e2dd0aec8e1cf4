"""What tasks share that find objects in a frame: their words, and how two runs compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance, compare
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, ClassLabel, Image
from edgevision.tasks.camera_task import CameraTask
from edgevision.tasks.matching import distances
from edgevision.tasks.proof import Arrays, Bars, held_at_zero
from edgevision.tasks.task import Result, Summary

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
R = TypeVar("R", bound=Result)

MAX_CANDIDATES = 1000
"""How many boxes a graph weighs before suppression."""

# Paired by `matching`: how far two objects may be apart, and the share that may be further.
_DISTANCES = {
    "labels": Bars(0.0, 0.0, 0.0),
    "boxes": Bars(0.01, 0.1, 0.3),
    "scores": Bars(1e-3, 0.05, 0.3),
    "masks": Bars(1e-2, 0.05, 0.2),
}
_SHARES = Bars(0.02, 0.05, 0.2)


class FoundObjects:
    """What results share that are objects in a frame, best first; each has fields of its own."""

    __slots__ = ()

    boxes: Floats
    labels: Labels
    scores: Floats
    classes: tuple[ClassLabel, ...]

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.boxes)

    def overlay(self, frame: Image) -> Image:
        """Return the objects drawn on `frame`, uint8[H, W, 3]."""
        raise NotImplementedError

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

    def _colors(self) -> list[Floats]:
        """Return the colour of each object's class, float32[3] RGB, 0 to 255."""
        texts = [self.classes[label].color for label in self.labels]
        return [
            np.frombuffer(bytes.fromhex(text[1:]), np.uint8).astype(np.float32) for text in texts
        ]


class ObjectTask(CameraTask[R]):
    """A task that finds objects; those of both sides are paired before they are compared.

    Attributes:
        outputs: what the graph gives, in order.
    """

    outputs: tuple[str, ...]

    def read_camera(self, settings: Settings, stages: tuple[Stage, ...]) -> CameraFrame:
        """Return the frame that a bundle's graph takes; BundleFormatError if it is another's."""
        if len(stages) != 1 or len(stages[0].inputs) != 1:
            raise BundleFormatError(f"task {self}: expected one stage with one input")
        (frame,), outputs = stages[0].inputs, stages[0].outputs
        if tuple(spec.name for spec in outputs) != self.outputs:
            raise BundleFormatError(
                f"task {self}: expected uint8[1, ...] -> {', '.join(self.outputs)}; got {frame} -> "
                f"{', '.join(map(str, outputs))}"
            )
        return CameraFrame.from_manifest(frame, settings, self.name)

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return how far paired objects may be apart."""
        compared = {name: bars for name, bars in _DISTANCES.items() if name in self.outputs}
        return {name: Tolerance(bars[form], _SHARES[form]) for name, bars in compared.items()}

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

    def compare_corners(
        self, reference: Arrays, candidate: Arrays, form: Form, *, name: str
    ) -> list[ParityReport]:
        """Hold each frame's best score: on a frame of one value any of equal boxes may be kept."""
        before, after = (side["scores"].max(-1) for side in (reference, candidate))
        bar = Tolerance(_DISTANCES["scores"][form])
        return [compare(before, after, bar, name=f"{name}/best score")]

    def golden_reason(self, golden: Arrays) -> str:
        """Return why these answers prove nothing: there is no object in any."""
        if distances(golden, golden)["labels"].size:
            return ""
        return (
            "the model finds no object in any sample, which proves nothing about a graph. Give "
            "frames that show its classes: --calibration DIR or --evaluate DIR."
        )


def output_labels(outputs: Mapping[str, Array], classes: int) -> Labels:
    """Return int32[N], the class of each object that an inference gave.

    Raises:
        FrameError: the engine gave a class or count that cannot be.
    """
    count = int(outputs["count"][0])
    labels = outputs["labels"][0, : max(count, 0)].astype(np.int32) - 1
    if not 0 <= count <= outputs["boxes"].shape[1] or (
        count and not 0 <= labels.min() <= labels.max() < classes
    ):
        raise FrameError(
            f"the engine gave {count} objects of classes {sorted(set(labels.tolist()))}, the "
            f"bundle names {classes}. Run `edgevision verify` on the bundle."
        )
    return labels
