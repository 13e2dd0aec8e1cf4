"""Frames from files: images, folders of images and videos, and label maps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._files import open_plain
from edgevision._optional import require
from edgevision.errors import FileReadError

Image = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mjpeg"})
_MAX_PIXELS = 64_000_000
_MAX_IMAGE_BYTES = 1 << 30
_MAX_VIDEO_BYTES = 1 << 40
# Of the suffixes above alone: a .png that holds PostScript would start Ghostscript, an .mp4 that is
# a play list would open whatever it names.
_IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_VIDEO_FORMATS = {
    ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska",
    ".avi": "avi", ".ts": "mpegts", ".mjpeg": "mjpeg",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from a file: a name fit for an output file, and uint8[H, W, 3] RGB, host."""

    name: str
    pixels: Image


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image as uint8[H, W, 3] RGB, turned as its EXIF orientation says.

    Raises:
        FileReadError: the file is missing, empty, corrupt, too large or no image.
        MissingDependencyError: Pillow is not installed.
    """
    ops = require("PIL.ImageOps", extra="media")
    image = _open(path)
    try:
        return np.asarray(ops.exif_transpose(image).convert("RGB"), np.uint8)
    except Exception as error:  # EXIF is read and written again, and may hold anything
        raise FileReadError(f"{path}: its EXIF data cannot be read: {error}") from error


def read_labels(path: str | os.PathLike[str]) -> Image:
    """Read a label map, one byte a pixel, as uint8[H, W] class indices.

    Raises:
        FileReadError: the file cannot be read, or is not a one-channel 8-bit image.
    """
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise FileReadError(
            f"{path}: mode {image.mode}, expected one byte a pixel (L or P) holding class indices"
        )
    return np.asarray(image, np.uint8)


def resize(frame: Image, size: tuple[int, int]) -> Image:
    """Return `frame: uint8[H, W, 3]` at `size` (H, W), bilinear with antialiasing."""
    if frame.shape[:2] == size:
        return frame
    image = require("PIL.Image", extra="media")
    height, width = size
    resized = image.fromarray(frame).resize((width, height), image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images of a folder, sorted by name.

    Raises:
        FileReadError: there is no such folder, or no image in it.
    """
    path = Path(folder)
    try:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror}; expected a folder of images") from error
    if not found:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise FileReadError(f"{path}: no image in this folder; looked for {kinds}")
    return found


def count_frames(source: str | os.PathLike[str]) -> int:
    """Return how many frames `iterate_frames` will give; 0 if a video does not say."""
    path = Path(source)
    if path.is_dir():
        return len(list_images(path))
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return 1
    with _open_video(path) as container:
        return int(container.streams.video[0].frames)


def iterate_frames(source: str | os.PathLike[str]) -> Iterator[Frame]:
    """Give the frames of an image, of a folder of images, or of a video, in order.

    Raises:
        FileReadError: the source cannot be read.
        MissingDependencyError: Pillow (images) or PyAV (videos) is not installed.
    """
    path = Path(source)
    if path.is_dir():
        for image in list_images(path):
            yield Frame(image.stem, read_image(image))
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video_frames(path)
    else:
        yield Frame(path.stem, read_image(path))


def _open(path: str | os.PathLike[str]) -> Any:
    image = require("PIL.Image", extra="media")
    try:
        with open_plain(path, max_bytes=_MAX_IMAGE_BYTES, follow_links=True) as file:
            opened = image.open(file, formats=_IMAGE_FORMATS)
            if opened.width * opened.height > _MAX_PIXELS:
                raise FileReadError(
                    f"{path}: {opened.width}x{opened.height} pixels, at most {_MAX_PIXELS} are read"
                )
            opened.load()
    except FileReadError:
        raise
    except FileNotFoundError as error:
        raise FileReadError(f"{path}: no such file") from error
    except image.UnidentifiedImageError as error:
        raise FileReadError(f"{path}: not an image that Pillow can read") from error
    # Pillow's decoders raise whatever their format's parser hits on corrupt bytes.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise FileReadError(f"{path}: cannot be read as an image: {reason}") from error
    return opened


def _open_video(path: Path) -> Any:
    av = require("av", extra="media")
    try:
        open_plain(path, max_bytes=_MAX_VIDEO_BYTES, follow_links=True).close()
        # An absolute path, for FFmpeg takes "concat:..." and the like for protocols.
        container = av.open(os.path.abspath(path), format=_VIDEO_FORMATS[path.suffix.lower()])
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FileReadError(
            f"{path}: cannot be read as a video of the kind that its name says: {error}"
        ) from error
    fault = ""
    if not container.streams.video:
        fault = "holds no video stream"
    elif (codec := container.streams.video[0].codec_context) is None:
        fault = "its codec is not known here"
    elif codec.width * codec.height > _MAX_PIXELS:
        fault = f"{codec.width}x{codec.height} pixels, at most {_MAX_PIXELS} are read"
    else:
        codec.options = {"max_pixels": str(_MAX_PIXELS)}  # later frames may say otherwise
    if fault:
        container.close()
        raise FileReadError(f"{path}: {fault}")
    return container


def _video_frames(path: Path) -> Iterator[Frame]:
    av = require("av", extra="media")
    with _open_video(path) as container:
        try:
            for i, frame in enumerate(container.decode(video=0)):
                yield Frame(f"{path.stem}-{i:06d}", frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise FileReadError(f"{path}: the video is damaged: {error}") from error
