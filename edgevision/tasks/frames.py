"""Frames from files: images, folders of images and videos, and label maps."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.files import open_plain
from edgevision.bundle.tensors import Image
from edgevision.errors import FileReadError

Colors = Mapping[tuple[int, int, int], int]
T = TypeVar("T")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mjpeg"})
RAW_SUFFIXES = frozenset({".raw", ".yuv", ".nv12", ".nv21", ".i420", ".yuyv", ".uyvy", ".bayer"})
"""Of dumps: frames one behind the other, without a header; see `camera_files`."""

_MAX_PIXELS = 64_000_000
_FEW_LEVELS, _SHOWN_COLORS = 20, 8
_PNG_BITS_AT = 24
_TRANSPARENT = "some of its pixels are transparent, and what is behind them is not said"
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_MAX_IMAGE_BYTES = 1 << 30
_MAX_VIDEO_BYTES = 1 << 40
# Only of the suffixes above: a .png that holds PostScript would start Ghostscript, an .mp4 that is
# a play list would open whatever it names.
_IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_LABEL_FORMATS = ("PNG", "TIFF", "BMP")  # which keep every number
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

    Grey of 16 bits is scaled to 8. What has no one meaning as a camera's frame is refused: values
    without a known range (float, 32-bit integers), pixels that are seen through, and files that
    hold several pictures.

    Raises:
        FileReadError: the file is missing, empty, corrupt, too large, no image, or one of those.
        MissingDependencyError: Pillow is not installed.
    """
    return _read(path, _frame_pixels)


def decode_image(data: bytes, name: str) -> Image:
    """Return a picture's file that is in memory as `read_image` returns one on a disk.

    Args:
        data: the file's bytes.
        name: what errors call it.

    Raises:
        FileReadError: see `read_image`.
    """
    return _read(name, _frame_pixels, lambda: io.BytesIO(data))


def read_recorded(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read a picture of one 16-bit number a pixel as uint16[H, W], any other as `read_image`.

    Raises:
        FileReadError: see `read_image`.
    """
    wide = _read(path, _wide_or_nothing)
    return wide if wide.size else read_image(path)


def read_labels(
    path: str | os.PathLike[str], colors: Colors | None = None, numbers: Image | None = None
) -> Image:
    """Read a label map of one channel as uint8[H, W] class indices.

    Args:
        path: a file of a kind that keeps numbers: PNG, TIFF or BMP.
        colors: the class of each colour, where the map may be in colours; others are void.
        numbers: uint8[256], the class of each number where it is not in colours.

    Raises:
        FileReadError: the file cannot be read, or is not such a map.
    """

    def decode(image: Any, start: bytes) -> Image:
        if colors and image.format in _LABEL_FORMATS and image.mode in ("RGB", "RGBA"):
            return _by_color(np.asarray(image.convert("RGB"), np.uint32), colors)
        found = _class_indices(image, start)
        return found if numbers is None else numbers[found]

    return _read(path, decode)


def label_colors(path: str | os.PathLike[str]) -> str:
    """Return which colours a label map is of, the most frequent first; empty of other maps.

    Raises:
        FileReadError: see `read_labels`.
    """
    shown: list[str] = []

    def decode(image: Any, _: bytes) -> Image:
        pixels = np.asarray(image)
        if image.mode in ("RGB", "RGBA"):
            flat = pixels[..., :3].reshape(-1, 3)
            found, counts = np.unique(flat, axis=0, return_counts=True)
            order = np.argsort(counts)[::-1][:_SHOWN_COLORS]
            shares = counts / counts.sum()
            shown.extend(f"#{bytes(found[i]).hex()} ({shares[i]:.2%})" for i in order)
        return pixels

    _read(path, decode)
    return ", ".join(shown)


def read_counts(path: str | os.PathLike[str]) -> npt.NDArray[np.uint16]:
    """Read an image of one 16-bit number a pixel, as uint16[H, W].

    Raises:
        FileReadError: the file cannot be read, or is not a one-channel 16-bit image.
    """
    return _read(path, _wide_numbers)


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


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` of the items, evenly spread over them."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def count_frames(source: str | os.PathLike[str]) -> int:
    """Return how many frames `iterate_frames` will give; 0 if a video does not say."""
    path = Path(source)
    if path.is_dir():
        return len(list_images(path))
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return 1
    with _open_video(path) as container:
        return int(container.streams.video[0].frames)


def iterate_frames(
    source: str | os.PathLike[str], read: Callable[[Path], npt.NDArray[Any]] = read_image
) -> Iterator[Frame]:
    """Give the frames of an image, of a folder of images, or of a video, in order.

    Args:
        source: where they are.
        read: reads one image.

    Raises:
        FileReadError: the source cannot be read.
        MissingDependencyError: Pillow (images) or PyAV (videos) is not installed.
    """
    path = Path(source)
    if path.is_dir():
        images = list_images(path)
        for name, image in zip(_names(images), images, strict=True):
            yield Frame(name, read(image))
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video_frames(path)
    else:
        yield Frame(path.stem, read(path))


def frames_named(source: str | os.PathLike[str]) -> Callable[[str], bool]:
    """Return what tells the names of the frames that `iterate_frames` may give from other names.

    Raises:
        FileReadError: the source is a folder that cannot be read, or holds no image.
    """
    path = Path(source)
    if path.is_dir():
        return set(_names(list_images(path))).__contains__
    if path.suffix.lower() not in VIDEO_SUFFIXES | RAW_SUFFIXES:
        return path.stem.__eq__
    numbered = re.compile(re.escape(path.stem) + r"-\d{6,}")
    return lambda name: numbered.fullmatch(name) is not None


def _names(images: Sequence[Path]) -> list[str]:
    """Return a name for each file of a folder: its stem, and its whole name where stems meet."""
    # A file system may take "A" and "a" for the same name.
    stems = Counter(image.stem.casefold() for image in images)
    names = [image.stem if stems[image.stem.casefold()] == 1 else image.name for image in images]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [image.name for image in images]  # of a.png, a.jpg and a.png.jpg


def _read(
    path: str | os.PathLike[str],
    decode: Callable[[Any, bytes], npt.NDArray[Any]],
    opened_file: Callable[[], BinaryIO] | None = None,
) -> npt.NDArray[Any]:
    """Return what `decode` makes of a file that holds one picture, and of the file's first bytes.

    Raises:
        FileReadError: there is no such file.
    """
    image = require("PIL.Image", extra="media")
    plain = partial(open_plain, path, max_bytes=_MAX_IMAGE_BYTES, follow_links=True)
    try:
        with (opened_file or plain)() as file:
            start = file.read(_PNG_BITS_AT + 1)
            file.seek(0)
            opened = image.open(file, formats=_IMAGE_FORMATS)
            if opened.width * opened.height > _MAX_PIXELS:
                raise FileReadError(
                    f"{path}: {opened.width}x{opened.height} pixels, at most {_MAX_PIXELS} are read"
                )
            count = getattr(opened, "n_frames", 1)
            # Of a phone's or drone's MPO the first is the photo, the others are previews of it.
            if count > 1 and opened.format != "MPO":
                raise FileReadError(
                    f"{path}: holds {count} pictures (pages, or an animation), expected one. Save "
                    "each as a file of its own, or an animation as a video"
                )
            opened.load()
            return decode(opened, start)
    except FileReadError:
        raise
    except FileNotFoundError as error:
        raise FileReadError(f"{path}: no such file") from error
    except image.UnidentifiedImageError as error:
        raise FileReadError(f"{path}: not an image that Pillow can read") from error
    except _UnfitError as error:
        raise FileReadError(f"{path}: {error}") from None
    # Pillow's decoders raise whatever their format's parser hits on corrupt bytes.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise FileReadError(f"{path}: cannot be read as an image: {reason}") from error


class _UnfitError(Exception):
    """A valid picture that is not what it was given as."""


def _frame_pixels(image: Any, start: bytes) -> Image:
    try:
        upright = require("PIL.ImageOps", extra="media").exif_transpose(image)
    except Exception as error:  # EXIF is read and written again, and may hold anything
        raise _UnfitError(f"its EXIF data cannot be read: {error}") from error
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _eight_bits(np.asarray(upright), _white(image))
        # Pillow turns a TIFF's "0 is white" round only in 8 bits.
        if image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0:
            grey = 255 - grey
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema()[0] < 255:
            raise _UnfitError(
                f"{_TRANSPARENT}. Flatten it, e.g. with Pillow: "
                "Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)"
            )
    pixels = np.asarray(upright.convert("RGB"), np.uint8)
    if _has_wide_colors(image, start) and pixels.min() < pixels.max():
        _warn_of_few_levels(pixels)
    return pixels


def _has_wide_colors(image: Any, start: bytes) -> bool:
    """Whether a picture in colours has 16 bits a channel, of which Pillow keeps the upper 8."""
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(_TIFF_BITS, (8,))) > 8)
    return bool(image.format == "PNG" and start[_PNG_BITS_AT] == 16)


def _white(image: Any) -> int:
    """Return which value is white in a picture of one wide channel."""
    if image.format == "TIFF" and image.tag_v2.get(_TIFF_BITS) == (12,):
        return 4095
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    kind = "float" if image.mode == "F" else "integer"
    raise _UnfitError(
        f"holds {kind}s of more than 16 bits or with a sign (Pillow's mode {image.mode}), and "
        "which of them is white is not said. Scale it to 8 or 16 bits, e.g. with numpy: "
        "Image.fromarray(((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8))"
    )


def _eight_bits(values: npt.NDArray[Any], white: int) -> Image:
    wide = values.astype(np.uint32)
    grey = ((wide * 255 + white // 2) // white).astype(np.uint8)
    if wide.min() < wide.max():
        _warn_of_few_levels(grey)
    return grey


def _warn_of_few_levels(pixels: Image) -> None:
    if int(pixels.max()) - int(pixels.min()) < _FEW_LEVELS:
        warnings.warn(
            f"a 16-bit picture has fewer than {_FEW_LEVELS} of 256 levels left in 8 bits: where "
            "its values are of 10, 12 or 14 bits, scale them to 16 first",
            stacklevel=3,
        )


def _by_color(pixels: npt.NDArray[np.uint32], colors: Colors) -> Image:
    found = pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    classes = np.full(found.shape, 255, np.uint8)
    for (red, green, blue), index in colors.items():
        classes[found == (red << 16 | green << 8 | blue)] = index
    return classes


def _class_indices(image: Any, start: bytes) -> Image:
    if image.format not in _LABEL_FORMATS:
        raise _UnfitError(f"is a {image.format} file, expected a PNG, which keeps class indices")
    values = np.asarray(image)
    if image.mode == "L" and image.format != "PNG":
        return values
    if image.mode == "L":
        # Pillow spreads the values of 2 and 4 bits over 0 to 255.
        return values // np.uint8(255 // (2 ** start[_PNG_BITS_AT] - 1))
    if image.mode in ("P", "1") or (image.mode.startswith("I") and values.max() < 256):
        return values.astype(np.uint8)
    raise _UnfitError(
        f"mode {image.mode}, expected one byte a pixel (L or P) holding class indices: colours and "
        "wider values are no classes. Write each pixel's class, e.g. with Pillow: "
        "Image.fromarray(indices.astype(np.uint8)).save(NAME)"
    )


def _wide_or_nothing(image: Any, _: bytes) -> npt.NDArray[np.uint16]:
    is_wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    return np.asarray(image).astype(np.uint16) if is_wide else np.empty(0, np.uint16)


def _wide_numbers(image: Any, _: bytes) -> npt.NDArray[np.uint16]:
    if not image.mode.startswith("I"):
        raise _UnfitError(f"mode {image.mode}, expected one 16-bit number a pixel (I;16)")
    return np.asarray(image).astype(np.uint16)


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
    reason = ""
    if not container.streams.video:
        reason = "holds no video stream"
    elif (codec := container.streams.video[0].codec_context) is None:
        reason = "its codec is not known here"
    elif codec.width * codec.height > _MAX_PIXELS:
        reason = f"{codec.width}x{codec.height} pixels, at most {_MAX_PIXELS} are read"
    else:
        codec.options = {"max_pixels": str(_MAX_PIXELS)}  # later frames may say otherwise
    if reason:
        container.close()
        raise FileReadError(f"{path}: {reason}")
    return container


def _video_frames(path: Path) -> Iterator[Frame]:
    av = require("av", extra="media")
    with _open_video(path) as container:
        if (ratio := container.streams.video[0].sample_aspect_ratio) not in (None, 0, 1):
            warnings.warn(
                f"{path}: its pixels of {ratio.numerator}:{ratio.denominator} are taken as "
                "they are coded, not stretched as a player shows them",
                stacklevel=2,
            )
        try:
            for i, frame in enumerate(container.decode(video=0)):
                matrix = frame.side_data.get("DISPLAYMATRIX")
                pixels = _opaque(frame, path)
                if matrix is not None:
                    pixels = _as_shown(pixels, np.frombuffer(bytes(matrix), np.int32), path)
                yield Frame(f"{path.stem}-{i:06d}", pixels)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise FileReadError(f"{path}: the video is damaged: {error}") from error


def _opaque(frame: Any, path: Path) -> Image:
    """Return a frame in RGB.

    Raises:
        FileReadError: some of it is seen through.
    """
    has_alpha = any(part.is_alpha for part in frame.format.components)
    if has_alpha and frame.to_ndarray(format="rgba")[..., 3].min() < 255:
        raise FileReadError(f"{path}: {_TRANSPARENT}. Write the video without an alpha channel")
    pixels: Image = frame.to_ndarray(format="rgb24")
    return pixels


def _as_shown(pixels: Image, matrix: npt.NDArray[np.int32], path: Path) -> Image:
    """Return a frame turned and mirrored as a player shows it.

    Source: a pixel at (x, y) is shown at (a x + c y, b x + d y) but for a shift, where the matrix
    starts with a, b, u, c, d: ISO/IEC 14496-12, section 6.2.2.
    """
    a, b, _, c, d = matrix[:5].tolist()
    if b == c == 0 and a and d:
        turned, x, y = pixels, a, d
    elif a == d == 0 and b and c:
        turned, x, y = pixels.swapaxes(0, 1), c, b
    else:
        raise FileReadError(
            f"{path}: is shown turned by an angle that is not a multiple of 90 degrees. Turn it "
            "for good first, e.g.: ffmpeg -i IN.mp4 OUT.mp4"
        )
    return np.ascontiguousarray(turned[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1])
