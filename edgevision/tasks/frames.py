"""Frames from files: images, folders of images and videos, and label maps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.errors import FileReadError

Image = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mjpeg"})
_MAX_PIXELS = 64_000_000


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
    return np.asarray(ops.exif_transpose(_open(path)).convert("RGB"), np.uint8)


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


def read_counts(path: str | os.PathLike[str]) -> npt.NDArray[np.uint16]:
    """Read an image of one 16-bit number a pixel, as uint16[H, W].

    Raises:
        FileReadError: the file cannot be read, or is not a one-channel 16-bit image.
    """
    image = _open(path)
    if not image.mode.startswith("I"):
        raise FileReadError(f"{path}: mode {image.mode}, expected one 16-bit number a pixel (I;16)")
    return np.asarray(image).astype(np.uint16)


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


def pictures_in(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images of `folder`, or of its `images/`.

    Raises:
        FileReadError: the folder is missing or empty.
    """
    path = Path(folder)
    return list_images(path / "images" if (path / "images").is_dir() else path)


def labelled_images(
    folder: str | os.PathLike[str], *, suffixes: Sequence[str] = (".png",)
) -> list[tuple[Path, Path | None]]:
    """List a folder's images with the label of each: `images/NAME` and `labels/NAME.png`.

    Without `images/` the folder holds images alone, and no label.

    Args:
        folder: the folder.
        suffixes: what labels end in, the first that is there is taken.

    Raises:
        FileReadError: the folder is missing or empty, or an image has no label.
    """
    path = Path(folder)
    if not (path / "images").is_dir():
        return [(image, None) for image in list_images(path)]
    images, labels = list_images(path / "images"), path / "labels"
    found = []
    for image in images:
        named = (labels / f"{image.stem}{suffix}" for suffix in suffixes)
        found.append((image, next((label for label in named if label.is_file()), None)))
    missing = [image.stem for image, label in found if label is None]
    if missing:
        raise FileReadError(
            f"{labels}: {len(missing)} of {len(images)} images have no label, the first "
            f"'{missing[0]}{suffixes[0]}'. Each images/NAME needs labels/NAME"
            f"{' or '.join(suffixes)}."
        )
    return found


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` of the paths, evenly spread over them."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


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
        with open(path, "rb") as file:
            opened = image.open(file)
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
        raise FileReadError(f"{path}: cannot be read as an image: {error}") from error
    return opened


def _open_video(path: Path) -> Any:
    av = require("av", extra="media")
    try:
        container = av.open(str(path))
    except (OSError, ValueError) as error:
        raise FileReadError(f"{path}: cannot be read as a video: {error}") from error
    if not container.streams.video:
        container.close()
        raise FileReadError(f"{path}: holds no video stream")
    return container


def _video_frames(path: Path) -> Iterator[Frame]:
    with _open_video(path) as container:
        try:
            for i, frame in enumerate(container.decode(video=0)):
                yield Frame(f"{path.stem}-{i:06d}", frame.to_ndarray(format="rgb24"))
        except (OSError, ValueError) as error:
            raise FileReadError(f"{path}: the video is damaged: {error}") from error
