"""What cameras record, as the graph takes it: raw dumps, pictures of 16 bits, photos and videos.

A dump holds frames one behind the other, of the layout that the bundle has: no header says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import open_plain
from edgevision.bundle.tensors import Image
from edgevision.errors import FileReadError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.frames import RAW_SUFFIXES, iterate_frames, read_image, read_recorded
from edgevision.tasks.pixel_formats import PixelLayout
from edgevision.tasks.pixel_photos import frame_from_samples, photo_from_frame
from edgevision.tasks.places import Place, read_frame

_MAX_DUMP_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class CameraRecord:
    """One frame of a file.

    Attributes:
        name: fit for an output file.
        fed: uint8 of the layout's shape, what the model is called with.
        photo: uint8[H, W, 3] RGB as it is in the file; what a dump shows.
    """

    name: str
    fed: Image
    photo: Image


def read_camera_frame(place: Place, camera: CameraFrame) -> Image:
    """Return the frame at a place as the graph takes it, uint8 of the layout's shape.

    Raises:
        FileReadError: it cannot be read, or has 16 bits and is not the camera's.
    """
    if place.is_packed:
        return camera.fit(read_frame(place))
    return next(iter(camera_records(place.file, camera))).fed


def count_records(source: str | os.PathLike[str], camera: CameraFrame) -> int | None:
    """Return how many frames a dump holds; None if the source is not one."""
    path = Path(source)
    if path.suffix.lower() not in RAW_SUFFIXES:
        return None
    return path.stat().st_size // camera.layout.size_bytes if path.is_file() else 0


def camera_records(source: str | os.PathLike[str], camera: CameraFrame) -> Iterator[CameraRecord]:
    """Give the frames of a dump, a picture, a folder of pictures, or a video, in order.

    Raises:
        FileReadError: the source cannot be read, or is not what the camera gives.
    """
    path, layout = Path(source), camera.layout
    if path.suffix.lower() in RAW_SUFFIXES and not path.is_dir():
        yield from _dumped(path, layout)
        return
    takes_numbers = layout.format.sample_bytes == 2
    for frame in iterate_frames(source, read_recorded if takes_numbers else read_image):
        pixels: npt.NDArray[Any] = frame.pixels
        if pixels.dtype == np.uint16:
            yield _of_numbers(frame.name, pixels, layout)
        else:
            yield CameraRecord(frame.name, camera.fit(frame.pixels), frame.pixels)


def _of_numbers(name: str, numbers: npt.NDArray[np.uint16], layout: PixelLayout) -> CameraRecord:
    highest = int(numbers.max())
    if numbers.shape != layout.size or highest > layout.white:
        raise FileReadError(
            f"{name}: {list(numbers.shape)} numbers up to {highest}, and the model takes {layout}, "
            f"up to {layout.white}: pictures of 16 bits are taken as the camera gave them"
        )
    fed = frame_from_samples(numbers, layout)
    return CameraRecord(name, fed, photo_from_frame(fed, layout))


def _dumped(path: Path, layout: PixelLayout) -> Iterator[CameraRecord]:
    try:
        with open_plain(path, max_bytes=_MAX_DUMP_BYTES, follow_links=True) as file:
            number = 0
            while data := file.read(layout.size_bytes):
                if len(data) != layout.size_bytes:
                    raise FileReadError(
                        f"{path}: ends {len(data)} bytes into frame {number}; a frame of {layout} "
                        f"has {layout.arithmetic()}"
                    )
                fed = np.frombuffer(data, np.uint8).reshape(layout.shape)
                yield CameraRecord(f"{path.stem}-{number:06d}", fed, photo_from_frame(fed, layout))
                number += 1
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror or error}; expected raw frames") from error
