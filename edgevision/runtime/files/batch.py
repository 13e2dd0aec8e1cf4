"""A model over files: the frames of an image, a folder or a video, with pictures of the answers."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.errors import FileReadError, FrameError
from edgevision.progress import Progress, silent
from edgevision.runtime.model import Model
from edgevision.tasks.caption import CaptionResult, CaptionTask
from edgevision.tasks.frames import count_frames, iterate_frames, resize
from edgevision.tasks.instance import InstanceResult, InstanceTask
from edgevision.tasks.semantic import SemanticResult, SemanticTask

Image = npt.NDArray[np.uint8]
Result = SemanticResult | InstanceResult | CaptionResult


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """What was found in one frame.

    Attributes:
        name: the file's, or the number of a video's frame.
        text: the answer in a line.
        answer: the same for machines, by the task's own words.
        resized_from: the frame's (H, W) where it was not the model's.
    """

    name: str
    text: str
    answer: dict[str, object]
    resized_from: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class FilesSummary:
    """What was found in all frames, and the median time of one inference."""

    frames: tuple[FrameSummary, ...]
    median_ms: float


def run_files(
    model: Model,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> FilesSummary:
    """Run every frame of `source`; write pictures of the answers into the folder `out`.

    A frame of another size than the model's is resized, and the summary says so.

    Raises:
        FileReadError: the source cannot be read, or holds no frame.
        FrameError: the model does not take frames.
    """
    task = model.task
    if not isinstance(task, SemanticTask | InstanceTask | CaptionTask):
        raise FrameError(
            f"'{model.manifest.name}' takes its own tensors, not frames: call it from Python with "
            f"{', '.join(str(spec) for spec in model.session.inputs)}"
        )
    folder = Path(out) if out is not None else None
    total, frames, times_ms = count_frames(source), [], []
    for done, frame in enumerate(iterate_frames(source)):
        progress("running", done, total)
        pixels = resize(frame.pixels, task.frame_size)
        fed = pixels[..., ::-1] if task.channel_order == "bgr" else pixels
        result = model(np.ascontiguousarray(fed))
        assert isinstance(result, SemanticResult | InstanceResult | CaptionResult)
        times_ms.append(result.timings.total_ms)
        original = frame.pixels.shape[:2]
        moved = (original[0], original[1]) if original != task.frame_size else None
        frames.append(FrameSummary(frame.name, *_said(result), moved))
        if folder is not None:
            save_pictures(result, pixels, folder, frame.name)
    if not frames:
        raise FileReadError(f"{source}: holds no frame")
    progress("running", len(frames), len(frames))
    return FilesSummary(tuple(frames), statistics.median(times_ms))


def _said(result: Result) -> tuple[str, dict[str, object]]:
    """Return an answer for people and for machines."""
    if isinstance(result, CaptionResult):
        scores = result.scores.tolist()
        others = [
            {"text": text, "score": score}
            for text, score in zip(result.hypotheses, scores, strict=True)
        ]
        return result.text, {"caption": result.text, "hypotheses": others}
    if isinstance(result, InstanceResult):
        found = [
            {"label": result.classes[label].name, "score": score, "box": box}
            for label, score, box in zip(
                result.labels.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True
            )
        ]
        return ", ".join(result.captions()[:6]) or "nothing", {"objects": found}
    shares = result.shares()
    text = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:4])
    return text, {"shares": shares}


def save_pictures(result: Result, frame: Image, folder: Path, name: str) -> Path:
    """Write `NAME.jpg` (overlay), and of a class map `NAME-classes.png`; return the overlay."""
    image = require("PIL.Image", extra="media")
    folder.mkdir(parents=True, exist_ok=True)
    overlay = folder / f"{name}.jpg"
    image.fromarray(result.overlay(frame)).save(overlay, quality=92)
    if isinstance(result, SemanticResult):
        image.fromarray(result.mask).save(folder / f"{name}-classes.png")
    return overlay
