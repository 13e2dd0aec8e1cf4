"""A model over files: the frames of an image, a folder or a video, with pictures of the answers."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.errors import FileReadError, WrongTaskError
from edgevision.progress import Progress, silent
from edgevision.runtime.model import Model
from edgevision.tasks.frames import count_frames, iterate_frames, resize
from edgevision.tasks.task import Result

Image = npt.NDArray[np.uint8]


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
    model: Model[Any],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> FilesSummary:
    """Run every frame of `source`; write pictures of the answers into the folder `out`.

    A frame of another size than the model's is resized, and the summary says so.

    Raises:
        FileReadError: the source cannot be read, or holds no frame.
        WrongTaskError: the model does not take frames.
    """
    camera = model.decoder.camera
    if camera is None:
        raise WrongTaskError(
            f"'{model.manifest.name}' takes its own tensors, not frames: call it from Python with "
            f"{', '.join(str(spec) for spec in model.session.inputs)}"
        )
    folder = Path(out) if out is not None else None
    total, frames, times_ms = count_frames(source), [], []
    for done, frame in enumerate(iterate_frames(source)):
        progress("running", done, total)
        pixels = resize(frame.pixels, camera.size)
        result = model(camera.fit(pixels))
        times_ms.append(result.timings.total_ms)
        original = frame.pixels.shape[:2]
        moved = (original[0], original[1]) if original != camera.size else None
        answer = result.summary()
        frames.append(FrameSummary(frame.name, answer.text, answer.fields, moved))
        if folder is not None:
            save_pictures(result, pixels, folder, frame.name)
    if not frames:
        raise FileReadError(f"{source}: holds no frame")
    progress("running", len(frames), len(frames))
    return FilesSummary(tuple(frames), statistics.median(times_ms))


def save_pictures(result: Result, frame: Image, folder: Path, name: str) -> list[Path]:
    """Write `NAME.jpg` (overlay), and what else the result shows as `NAME-WHAT.png`."""
    image = require("PIL.Image", extra="media")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for what, picture in result.pictures(frame).items():
        path = folder / (f"{name}{what}.png" if what else f"{name}.jpg")
        image.fromarray(picture).save(path, **({} if what else {"quality": 92}))
        written.append(path)
    return written
