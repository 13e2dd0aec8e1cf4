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
from edgevision.runtime.frames import count_frames, frames_named, iterate_frames, resize
from edgevision.runtime.model import Model
from edgevision.runtime.outputs import picture_mark, refuse_foreign
from edgevision.runtime.tasks.caption import CaptionResult, CaptionTask
from edgevision.runtime.tasks.instance import InstanceResult, InstanceTask
from edgevision.runtime.tasks.semantic import SemanticResult, SemanticTask

Image = npt.NDArray[np.uint8]
Result = SemanticResult | InstanceResult | CaptionResult

PICTURE_ENDINGS = (".overlay.jpg", ".classes.png")
"""What pictures of a frame's answer end in, after the frame's name."""


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """What was found in one frame.

    Attributes:
        name: the file's without its ending, with it where two would share a name, or the number
            of a video's frame.
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
    force: bool = False,
    progress: Progress = silent,
) -> FilesSummary:
    """Run every frame of `source`; write pictures of the answers into the folder `out`.

    A frame of another size than the model's is resized, and the summary says so.

    Args:
        model: takes frames.
        source: an image, a folder of images, or a video.
        out: see `save_pictures`; pictures of an earlier run are replaced.
        force: replace files of these names that edgevision did not make.
        progress: told how many frames are done.

    Raises:
        FileReadError: the source cannot be read, or holds no frame; or, before the first frame, a
            picture would replace a file that edgevision did not make.
        FrameError: the model does not take frames.
    """
    task = model.task
    if not isinstance(task, SemanticTask | InstanceTask | CaptionTask):
        raise FrameError(
            f"'{model.manifest.name}' takes its own tensors, not frames: call it from Python with "
            f"{', '.join(str(spec) for spec in model.session.inputs)}"
        )
    folder = Path(out) if out is not None else None
    if folder is not None:
        _check_folder(Path(source), folder, force=force)
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
            save_pictures(result, pixels, folder, frame.name, force=force)
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


def save_pictures(
    result: Result, frame: Image, folder: Path, name: str, *, force: bool = False
) -> Path:
    """Write `NAME.overlay.jpg`, and of a class map `NAME.classes.png`; return the overlay.

    Raises:
        FileReadError: one is there, and edgevision did not make it; `force` replaces it.
    """
    image = require("PIL.Image", extra="media")
    overlay, classes = (folder / f"{name}{ending}" for ending in PICTURE_ENDINGS)
    written = [overlay, classes] if isinstance(result, SemanticResult) else [overlay]
    refuse_foreign(written, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    picture = image.fromarray(result.overlay(frame))
    picture.save(overlay, quality=92, **picture_mark(overlay))
    if isinstance(result, SemanticResult):
        image.fromarray(result.mask).save(classes, **picture_mark(classes))
    return overlay


def _check_folder(source: Path, folder: Path, *, force: bool) -> None:
    """Refuse a folder where the pictures of `source` would replace others, or be taken for frames.

    Raises:
        FileReadError: says what is there.
    """
    is_frame = frames_named(source)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileReadError(f"'{folder}' is a file, expected a folder to write the pictures into")
    if source.is_dir() and folder.samefile(source):
        raise FileReadError(
            f"'{folder}' is the folder of the frames, and the next run would take the pictures for "
            "frames. Give another --out"
        )
    found = [
        path
        for path in sorted(folder.iterdir())
        for ending in PICTURE_ENDINGS
        if path.name.endswith(ending) and is_frame(path.name.removesuffix(ending))
    ]
    refuse_foreign(found, force=force)
