"""What tasks share that find objects in a frame: their words, and how two runs compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance, compare
from edgevision.bundle.tensors import Array, Arrays, Floats, Image
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, ClassLabel, FrameDecoder, read_class_labels
from edgevision.tasks.camera_task import CameraTask
from edgevision.tasks.matching import distances
from edgevision.tasks.proof import Bars
from edgevision.tasks.task import Result, Summary
from edgevision.tasks.timings import Timings

Labels = npt.NDArray[np.int32]
R = TypeVar("R", bound=Result)
F = TypeVar("F", bound="FoundObjects")

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


@dataclass(frozen=True, slots=True)
class FoundObjects:
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

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self: F, score: float) -> F:
        """Return the objects of at least `score`."""
        return self._only(self.scores >= score)

    def _only(self: F, kept: npt.NDArray[np.bool_]) -> F:
        return replace(
            self, boxes=self.boxes[kept], labels=self.labels[kept], scores=self.scores[kept]
        )

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


@dataclass(frozen=True, slots=True)
class ObjectDecoder(FrameDecoder):
    """What decoders share that give objects.

    Attributes:
        classes: the label of each index.
        camera: the frame that the graph takes.
    """

    classes: tuple[ClassLabel, ...]
    camera: CameraFrame

    def objects(
        self, kind: type[F], outputs: Mapping[str, Array], timings: Timings, **own: Any
    ) -> F:
        """Return what was found as a result of its kind, with what is its own of each object.

        Raises:
            FrameError: the engine gave a class or count that cannot be.
        """
        labels = _labels(outputs, len(self.classes))
        count = len(labels)
        return kind(
            outputs["boxes"][0, :count].astype(np.float32),
            labels,
            outputs["scores"][0, :count].astype(np.float32),
            self.classes,
            self.camera.size,
            bool(outputs["converged"][0]),
            int(outputs["overflow"][0]) <= MAX_CANDIDATES,
            timings,
            **{
                name: array[0, :count].astype(np.uint8 if array.dtype == np.uint8 else np.float32)
                for name, array in own.items()
            },
        )


class ObjectTask(CameraTask[R]):
    """A task that finds objects; those of both sides are paired before they are compared.

    Attributes:
        outputs: what the graph gives, in order.
    """

    outputs: tuple[str, ...]
    paired = _DISTANCES
    shares = _SHARES

    def described(
        self, settings: Settings, stages: tuple[Stage, ...]
    ) -> tuple[tuple[ClassLabel, ...], CameraFrame]:
        """Return a bundle's classes and frame; BundleFormatError if its graph is another's."""
        stage, camera = self.read_camera(settings, stages)
        if tuple(spec.name for spec in stage.outputs) != self.outputs:
            raise BundleFormatError(
                f"task {self}: expected uint8[1, ...] -> {', '.join(self.outputs)}; got "
                f"{stage.inputs[0]} -> {', '.join(map(str, stage.outputs))}"
            )
        return read_class_labels(settings, self.name), camera

    def class_map(self, result: R) -> Labels:
        """Return int32[H, W]: the class of what each pixel surely shows and 1, 0 for nothing."""
        raise NotImplementedError

    def differs(self, before: R, after: R) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where the class of the surest object is not the same."""
        found: npt.NDArray[np.bool_] = self.class_map(before) != self.class_map(after)
        return found

    def distances(self, reference: Arrays, candidate: Arrays) -> dict[str, npt.NDArray[np.float64]]:
        """Pair the objects of both sides; see `matching`.

        Raises:
            ValueError: nothing was detected that could be compared.
        """
        found = distances(reference, candidate)
        if not found["labels"].size:
            raise ValueError("neither side detects anything on the golden samples")
        return found

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


def _labels(outputs: Mapping[str, Array], classes: int) -> Labels:
    """Return int32[N], the class of each object that an inference gave."""
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
