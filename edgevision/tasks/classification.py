"""Image classification on the run side: camera frame in, the likeliest labels out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Array, Arrays, DType, Image, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, FrameDecoder, check_same_frame
from edgevision.tasks.camera_task import CameraTask, both_beneath
from edgevision.tasks.proof import Bars
from edgevision.tasks.task import Headline, Read, Summary
from edgevision.tasks.timings import Timings

MAX_CLASSES = 65536
_MAX_NAME = 200
# First labels: how many may be others, and how far the probabilities of the same may be apart.
_SHARES = Bars(0.0, 0.125, 0.25)
_DISTANCES = {"labels": Bars(0.0, 0.0, 0.0), "scores": Bars(1e-3, 0.05, 0.3)}
# There is no other pixel that could make up for a wrong label, and each 6 dB halve how many there
# are: of mobilenetv2-imagenet's first labels 98.5 to 99.2 % stay, on three sets of frames.
_MIN_END_SNR_DB = 37.0
# Two labels whose probabilities are this near are tied: either may come first.
_TIED = 1e-3


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """What a classifier says of one frame, likeliest first.

    Attributes:
        labels: int32[K] indices into `classes`, host; the caller's own.
        scores: float32[K], the probability of each, 0 to 1.
        classes: the name of each index.
        frame_size: (H, W) of the frame.
        timings: how long it took.
    """

    labels: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    frame_size: tuple[int, int]
    timings: Timings

    def __str__(self) -> str:
        return self.names[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each label."""
        return tuple(self.classes[label] for label in self.labels)

    def summary(self) -> Summary:
        """Return the likeliest label, and all K with their probabilities."""
        found = [
            {"label": name, "score": score}
            for name, score in zip(self.names, self.scores.tolist(), strict=True)
        ]
        return Summary(self._lines()[0], {"labels": found})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the overlay."""
        return {".overlay.jpg": self.overlay(frame)}

    def overlay(self, frame: Image) -> Image:
        """Return the labels written on `frame`, uint8[H, W, 3], each over a bar of its probability.

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        check_same_frame(frame, self.frame_size)
        height, width = self.frame_size
        image = require("PIL.Image", extra="media").fromarray(frame)
        font = require("PIL.ImageFont", extra="media").load_default(max(9, height // 26))
        draw = require("PIL.ImageDraw", extra="media").Draw(image, "RGBA")
        lines = self._lines()
        margin = max(2, height // 120)
        line = draw.textbbox((0, 0), "Ag", font=font)[3] + 2 * margin
        widest = max(draw.textlength(text, font=font) for text in lines)
        panel = min(width, round(widest) + 4 * margin)
        draw.rectangle((0, 0, panel, line * len(lines)), fill=(0, 0, 0, 150))
        for row, (text, score) in enumerate(zip(lines, self.scores.tolist(), strict=True)):
            bar = (0, row * line, max(1, round(panel * min(score, 1.0))), (row + 1) * line - 1)
            draw.rectangle(bar, fill=(46, 125, 50, 200))
            draw.text((2 * margin, row * line + margin), text, "white", font)
        return np.array(image)

    def _lines(self) -> list[str]:
        return [
            f"{name} {score:.2f}"
            for name, score in zip(self.names, self.scores.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ClassificationDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `ClassificationResult`.

    Attributes:
        classes: the name of each index.
        camera: the frame that the graph takes.
    """

    classes: tuple[str, ...]
    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> ClassificationResult:
        """Return the result of one inference; see `Decoder`."""
        labels = outputs["labels"][0].astype(np.int32)
        if not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise FrameError(
                f"the engine gave labels {labels.tolist()[:8]}, the bundle names "
                f"{len(self.classes)}. Run `edgevision verify` on the bundle."
            )
        scores = outputs["scores"][0].astype(np.float32)
        return ClassificationResult(labels, scores, self.classes, self.camera.size, timings)


class ClassificationTask(CameraTask[ClassificationResult]):
    """Labels of a whole frame; the first is the same as its reference or another."""

    name = "classification"
    headline = Headline("top-1", max_loss=0.01)
    paired = _DISTANCES
    shares = _SHARES
    min_end_snr_db = _MIN_END_SNR_DB
    golden_count = 8  # a label is the same or another: of three, one would be a third

    def decoder(
        self, settings: Settings, stages: tuple[Stage, ...], read: Read
    ) -> ClassificationDecoder:
        """Return the decoder of one bundle; see `Task`."""
        stage, camera = self.read_camera(settings, stages)
        classes, outputs = _names(settings), stage.outputs
        if not _fits(outputs, len(classes)):
            raise BundleFormatError(
                f"task {self}: expected uint8[1, H, W, 3] -> labels int32[1, K], scores "
                f"float32[1, K], at most {len(classes)} of them; got {stage.inputs[0]} -> "
                f"{', '.join(map(str, outputs))}"
            )
        return ClassificationDecoder(classes, camera)

    def distances(self, reference: Arrays, candidate: Arrays) -> dict[str, npt.NDArray[np.float64]]:
        """Hold the first labels; see `label_distances`."""
        return label_distances(reference, candidate)

    def apart(self, before: ClassificationResult, after: ClassificationResult) -> float:
        """Return 1 where the labels differ, else how far their scores do."""
        if before.labels[0] != after.labels[0]:
            return 1.0
        return abs(float(before.scores[0]) - float(after.scores[0]))

    def difference(
        self, frame: Image, before: ClassificationResult, after: ClassificationResult
    ) -> tuple[float, Image]:
        """Return 1 where the labels differ, else how far their scores do; both are beneath."""
        # Numbers differ in their last digit everywhere: red is for another label.
        same = before.labels[0] == after.labels[0]
        was, now = before.summary().text, after.summary().text
        return self.apart(before, after), both_beneath(frame, now if same else was, now)


def label_distances(reference: Arrays, candidate: Arrays) -> dict[str, npt.NDArray[np.float64]]:
    """Return how far the first labels of both sides are apart, one number for each frame.

    Element by element, lists of labels disagree as soon as two nearly equal scores change places.
    So only the first label counts, and one that the reference finds as likely as its own is the
    same.

    Args:
        reference: labels int[..., K] and scores float[..., K], likeliest first.
        candidate: the same.

    Returns:
        Under `labels` 0 or 1 for another label; under `scores` how far both sides' scores of the
        candidate's label are apart, 0 for another label.
    """
    places = reference["labels"].shape[-1]
    labels, chosen = (side["labels"].reshape(-1, places) for side in (reference, candidate))
    scores, sure = (
        side["scores"].reshape(-1, places).astype(np.float64) for side in (reference, candidate)
    )
    found = labels == chosen[:, :1]
    theirs = np.where(found, scores, -1.0).max(1)
    differs = theirs < scores[:, 0] - _TIED
    distance = np.where(differs, 0.0, np.abs(theirs - sure[:, 0]))
    return {"labels": differs.astype(np.float64), "scores": distance}


def _names(settings: Settings) -> tuple[str, ...]:
    classes = settings.get("classes")
    if not isinstance(classes, list) or not 1 <= len(classes) <= MAX_CLASSES:
        raise BundleFormatError(
            f"task {TASK}: expected a list of 1 to {MAX_CLASSES} class names, got {classes!r:.80}"
        )
    names = [name for name in classes if isinstance(name, str) and 0 < len(name) <= _MAX_NAME]
    if len(names) != len(classes):
        raise BundleFormatError(
            f"task {TASK}: a class has no name of 1 to {_MAX_NAME} characters. Build the bundle "
            "again."
        )
    return tuple(names)


def _fits(outputs: tuple[TensorSpec, ...], classes: int) -> bool:
    if len(outputs) != 2 or len(outputs[0].shape) != 2:
        return False
    count = outputs[0].shape[1]
    wanted = (
        TensorSpec("labels", DType.INT32, (1, count)),
        TensorSpec("scores", DType.FLOAT32, (1, count)),
    )
    return 1 <= count <= classes and outputs == wanted


TASK = ClassificationTask()
