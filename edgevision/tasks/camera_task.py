"""What tasks share that look at one frame: samples from pictures, differences drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Image, TensorSpec
from edgevision.errors import BundleFormatError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.camera_files import read_camera_frame
from edgevision.tasks.cameras import camera_count, of_one_camera
from edgevision.tasks.frames import spread
from edgevision.tasks.labelled import readable_ones
from edgevision.tasks.places import list_frames
from edgevision.tasks.task import Feeds, Result, Task

R = TypeVar("R", bound=Result)

_RED = (255, 48, 48)
_DIFFERENCE_WIDTH_PX = 640


class CameraTask(Task[R]):
    """A task that looks at one frame, `uint8[H, W, 3]`."""

    picture_endings: tuple[str, ...] = (".overlay.jpg",)

    def read_camera(
        self, settings: Settings, stages: tuple[Stage, ...], *, outputs: int | None = None
    ) -> tuple[Stage, CameraFrame]:
        """Return the one stage of a bundle, and the frame that it takes.

        Raises:
            BundleFormatError: it has several, other inputs, or another number of outputs.
        """
        if len(stages) != 1 or len(stages[0].inputs) != 1:
            raise BundleFormatError(f"task {self}: expected one stage with one input")
        if outputs not in (None, len(stages[0].outputs)):
            raise BundleFormatError(f"task {self}: expected a stage with {outputs} outputs")
        return stages[0], CameraFrame.from_manifest(stages[0].inputs[0], settings, self.name)

    def samples(
        self, inputs: Sequence[TensorSpec], settings: Settings, folder: Path, count: int
    ) -> Iterator[Feeds]:
        """Give frames from at most `count` pictures of `folder`, evenly spread; see `list_frames`.

        Of several cameras each shows another picture, and of an open number of them all do.

        Raises:
            FileReadError: the folder or a picture in it cannot be read.
        """
        cameras = camera_count(settings)
        spec = inputs[0] if cameras is None else of_one_camera(inputs[0])
        camera = CameraFrame.from_manifest(spec, settings, self.name)
        together = 1 if cameras is None else cameras[1]
        places = spread(list_frames(folder), count * together)
        places = readable_ones(places, lambda place: read_camera_frame(place, camera))
        for number in range(min(count, len(places))):
            shown = [places[(number * together + i) % len(places)] for i in range(together)]
            frames = [read_camera_frame(place, camera) for place in shown]
            yield {camera.name: np.stack(frames)}

    def differs(self, before: R, after: R) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where two answers to one frame are not the same."""
        raise NotImplementedError

    def apart(self, before: R, after: R) -> float:
        """Return the share of pixels that differ."""
        return float(self.differs(before, after).mean())

    def difference(self, frame: Image, before: R, after: R) -> tuple[float, Image]:
        """Return the share of pixels that differ, and both answers beside them in red."""
        where = self.differs(before, after)
        drawn = [result.pictures(frame)[".overlay.jpg"] for result in (before, after)]
        return float(where.mean()), np.concatenate([*drawn, marked_red(frame, where)], axis=1)


def marked_red(frame: Image, where: npt.NDArray[np.bool_]) -> Image:
    """Return the frame in dim grey, and red where `where: bool[H, W]` is true."""
    marked = np.repeat((frame.mean(2, keepdims=True) * 0.45).astype(np.uint8), 3, 2)
    marked[where] = _RED
    return marked


def both_beneath(frame: Image, before: str, after: str) -> Image:
    """Return the frame with two answers in words beneath, the second in red where it differs."""
    images = require("PIL.Image", extra="media")
    font = require("PIL.ImageFont", extra="media").load_default(15)
    canvas = images.new("RGB", (_DIFFERENCE_WIDTH_PX, 300), "white")
    shown = images.fromarray(frame)
    shown.thumbnail((_DIFFERENCE_WIDTH_PX, 250))
    canvas.paste(shown, (0, 0))
    draw = require("PIL.ImageDraw", extra="media").Draw(canvas)
    draw.text((4, 254), before, "black", font)
    draw.text((4, 276), after, "black" if before == after else "red", font)
    return np.asarray(canvas)
