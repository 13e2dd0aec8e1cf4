"""A model over files: the frames of an image, a folder or a video, with pictures of the answers."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgevision._optional import require
from edgevision.bundle.tensors import Image
from edgevision.errors import FileReadError, FileWriteError, WrongTaskError
from edgevision.progress import Progress, silent
from edgevision.runtime.model import Model
from edgevision.tasks.camera_files import CameraRecord, camera_records, count_records
from edgevision.tasks.cameras import cameras_decoder
from edgevision.tasks.frames import count_frames, frames_named, resize
from edgevision.tasks.outputs import picture_mark, refuse_foreign
from edgevision.tasks.task import Result, get_task


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
    model: Model[Any],
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> FilesSummary:
    """Run every frame of `source`; write pictures of the answers into the folder `out`.

    A frame of another size than the model's is resized, and the summary says so. A model of several
    cameras is given as many frames in one call.

    Args:
        model: takes frames.
        source: an image, a folder of images, a video, or a dump of the camera's own frames
            (.raw, .yuv, .nv12 and the like), one behind the other.
        out: see `save_pictures`; pictures of an earlier run are replaced.
        force: replace files of these names that edgevision did not make.
        progress: told how many frames are done.

    Raises:
        FileReadError: the source cannot be read, or holds no frame.
        FileWriteError: before the first frame: a picture would replace a file that edgevision did
            not make.
        WrongTaskError: the model does not take frames.
    """
    camera = model.decoder.camera
    if camera is None:
        raise WrongTaskError(
            f"'{model.manifest.name}' takes its own tensors, not frames: call it from Python with "
            f"{', '.join(str(spec) for spec in model.session.inputs)}"
        )
    folder = Path(out) if out is not None else None
    if folder is not None:
        endings = get_task(model.manifest.task).picture_endings
        _check_folder(Path(source), folder, endings, force=force)
    frames: list[FrameSummary] = []
    times_ms: list[float] = []
    dumped = count_records(source, camera)
    total = count_frames(source) if dumped is None else dumped
    for frame, result in _answered(model, camera_records(source, camera)):
        progress("running", len(frames), total)
        times_ms.append(result.timings.total_ms)
        original = frame.photo.shape[:2]
        moved = (original[0], original[1]) if original != camera.size else None
        answer = result.summary()
        frames.append(FrameSummary(frame.name, answer.text, answer.fields, moved))
        if folder is not None:
            pixels = resize(frame.photo, camera.size)
            save_pictures(result, pixels, folder, frame.name, force=force)
    if not frames:
        raise FileReadError(f"{source}: holds no frame")
    progress("running", len(frames), len(frames))
    return FilesSummary(tuple(frames), statistics.median(times_ms))


def _answered(
    model: Model[Any], records: Iterator[CameraRecord]
) -> Iterator[tuple[CameraRecord, Result]]:
    """Give each frame with its answer; a state begins with the first of them."""
    cameras, is_first = cameras_decoder(model.decoder), True
    least, most = (1, 1) if cameras is None else cameras.count
    while together := list(islice(records, most)):
        if cameras is not None:
            # Where too few are left, the last is shown to the other cameras as well.
            missing = max(0, least - len(together))
            fed = [frame.fed for frame in together]
            yield from zip(together, model(fed + fed[-1:] * missing, is_cut=is_first), strict=False)
        else:
            yield together[0], model(together[0].fed, is_cut=is_first)
        is_first = False


def save_pictures(
    result: Result, frame: Image, folder: Path, name: str, *, force: bool = False
) -> list[Path]:
    """Write what the result shows, e.g. `NAME.overlay.jpg` and `NAME.classes.png`.

    Raises:
        FileWriteError: one is there, and edgevision did not make it; `force` replaces it.
    """
    image = require("PIL.Image", extra="media")
    pictures = {folder / f"{name}{end}": x for end, x in result.pictures(frame).items()}
    refuse_foreign(pictures, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    for path, picture in pictures.items():
        quality = {"quality": 92} if path.suffix == ".jpg" else {}
        image.fromarray(picture).save(path, **quality, **picture_mark(path))
    return list(pictures)


def _check_folder(source: Path, folder: Path, endings: Sequence[str], *, force: bool) -> None:
    """Refuse a folder where the pictures of `source` would replace others, or be taken for frames.

    Raises:
        FileWriteError: says what is there.
    """
    is_frame = frames_named(source)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileWriteError(f"'{folder}' is a file, expected a folder to write the pictures into")
    if source.is_dir() and folder.samefile(source):
        raise FileWriteError(
            f"'{folder}' is the folder of the frames, and the next run would take the pictures for "
            "frames. Give another --out"
        )
    found = [
        path
        for path in sorted(folder.iterdir())
        for ending in endings
        if path.name.endswith(ending) and is_frame(path.name.removesuffix(ending))
    ]
    refuse_foreign(found, force=force)
