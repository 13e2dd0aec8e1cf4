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
from edgevision.runtime.frames import count_frames, iterate_frames, resize
from edgevision.runtime.model import Model
from edgevision.runtime.tasks.semantic import SemanticResult, SemanticTask

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """What was found in one frame; `resized_from` is its (H, W) where it was not the model's."""

    name: str
    shares: dict[str, float]
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
    """Segment every frame of `source`; write overlays and class maps into the folder `out`.

    A frame of another size than the model's is resized, and the summary says so.

    Raises:
        FileReadError: the source cannot be read, or holds no frame.
        FrameError: the model does not take frames.
    """
    task = model.task
    if not isinstance(task, SemanticTask):
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
        assert isinstance(result, SemanticResult)
        times_ms.append(result.timings.total_ms)
        original = frame.pixels.shape[:2]
        moved = (original[0], original[1]) if original != task.frame_size else None
        frames.append(FrameSummary(frame.name, result.shares(), moved))
        if folder is not None:
            save_pictures(result, pixels, folder, frame.name)
    if not frames:
        raise FileReadError(f"{source}: holds no frame")
    progress("running", len(frames), len(frames))
    return FilesSummary(tuple(frames), statistics.median(times_ms))


def save_pictures(result: SemanticResult, frame: Image, folder: Path, name: str) -> Path:
    """Write `NAME.jpg` (overlay) and `NAME-classes.png` (indices); return the overlay's path."""
    image = require("PIL.Image", extra="media")
    folder.mkdir(parents=True, exist_ok=True)
    overlay = folder / f"{name}.jpg"
    image.fromarray(result.overlay(frame)).save(overlay, quality=92)
    image.fromarray(result.mask).save(folder / f"{name}-classes.png")
    return overlay
