"""How cameras' frames lie in memory: formats, padded rows, the matrix and range of YUV."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.reading import JsonValue
from edgevision.errors import FrameError

MATRICES: Mapping[str, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}
"""What red and blue count in luma: ITU-R BT.601-7, section 2.5.1, and BT.709-6, section 3.2."""

RANGES = ("limited", "full")
BITS = (10, 12, 14, 16)
MAX_ROW_BYTES = 1 << 18

_UINT8, _UINT16 = np.dtype(np.uint8), np.dtype("<u2")


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """One way of drivers to write a frame into one buffer.

    Attributes:
        name: what manifests and the command line call it.
        title: what it is, for people.
        order: of the channels in a pixel ("bgra"), of the bytes of two pixels ("yuyv"), of the
            2x2 colours of a mosaic row by row ("rggb"), or of the two chroma values ("uv").
        pixel_bytes: bytes of one pixel in a row; of the luma where chroma has rows of its own.
        sample_bytes: bytes of one sample; two are little endian, their value in the low bits.
        is_mosaic: whether each pixel has one colour of three.
        is_yuv: whether it is luma and chroma.
        chroma_rows: how many rows share one of chroma; 0 where chroma has no rows of its own.
        is_planar: whether the two chroma values lie in planes of their own.
    """

    name: str
    title: str
    order: str = ""
    pixel_bytes: int = 1
    sample_bytes: int = 1
    is_mosaic: bool = False
    is_yuv: bool = False
    chroma_rows: int = 0
    is_planar: bool = False

    @property
    def steps(self) -> tuple[int, int]:
        """How many rows and columns belong together: sizes and regions are multiples of them."""
        if self.is_mosaic or self.chroma_rows:
            return 2, 2
        return 1, 2 if self.is_yuv else 1

    def __str__(self) -> str:
        return self.name


def _mosaics() -> list[PixelFormat]:
    return [
        PixelFormat(
            f"{order}{bits}",
            f"Bayer mosaic {order.upper()}, {bits} bits a pixel",
            order,
            pixel_bytes=bits // 8,
            sample_bytes=bits // 8,
            is_mosaic=True,
        )
        for order in ("rggb", "bggr", "grbg", "gbrg")
        for bits in (8, 16)
    ]


_ALL = [
    PixelFormat("rgb8", "red, green, blue", "rgb", 3),
    PixelFormat("bgr8", "blue, green, red", "bgr", 3),
    PixelFormat("rgba8", "red, green, blue and a byte that is not used", "rgba", 4),
    PixelFormat("bgra8", "blue, green, red and a byte that is not used", "bgra", 4),
    PixelFormat("gray8", "one byte a pixel"),
    PixelFormat("gray16", "one 16-bit number a pixel", "", 2, 2),
    PixelFormat("nv12", "4:2:0, luma, then u and v in turn", "uv", is_yuv=True, chroma_rows=2),
    PixelFormat("nv21", "4:2:0, luma, then v and u in turn", "vu", is_yuv=True, chroma_rows=2),
    PixelFormat(
        "i420", "4:2:0, luma, then u, then v", "uv", is_yuv=True, chroma_rows=2, is_planar=True
    ),
    PixelFormat("yuyv", "4:2:2, y u y v", "yuyv", 2, is_yuv=True),
    PixelFormat("uyvy", "4:2:2, u y v y", "uyvy", 2, is_yuv=True),
    *_mosaics(),
]
_BY_NAME = {form.name: form for form in _ALL}


def pixel_format(name: str) -> PixelFormat:
    """Return a format by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(str(name).lower(), list(_BY_NAME), n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"pixel_format: got '{name:.40}'. {meant}Known: {', '.join(pixel_format_names())}"
        )
    return _BY_NAME[name]


def pixel_format_names() -> tuple[str, ...]:
    """Return the name of every format there is."""
    return tuple(_BY_NAME)


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """A camera's frame in memory, one buffer, rows from top to bottom.

    Attributes:
        format: what is in it.
        size: (H, W) in pixels.
        row_bytes: from one row to the next, of luma where chroma has rows of its own; rows of
            chroma planes are half as long.
        matrix: of YUV, a key of `MATRICES`.
        range: of YUV, "limited" (16 to 235 and 240) or "full".
        bits: significant bits of a sample.
    """

    format: PixelFormat
    size: tuple[int, int]
    row_bytes: int
    matrix: str = "bt601"
    range: str = "limited"
    bits: int = 8

    @staticmethod
    def check(
        name: str,
        size: tuple[int, int],
        *,
        row_bytes: int | None = None,
        matrix: str = "bt601",
        range: str = "limited",
        bits: int | None = None,
    ) -> PixelLayout:
        """Return the layout of frames of `size`.

        Raises:
            ValueError: an argument makes no sense; says which are possible.
        """
        form = pixel_format(name)
        (height, width), (rows, columns) = size, form.steps
        if height % rows or width % columns:
            nearest = (height // rows * rows or rows, width // columns * columns or columns)
            raise ValueError(
                f"size: {name} shares colour among {rows}x{columns} pixels, and {height}x{width} "
                f"is not a multiple of that. Take {nearest[0]}x{nearest[1]}"
            )
        least = width * form.pixel_bytes
        row_bytes = least if row_bytes is None else row_bytes
        step = 2 if form.is_planar or form.sample_bytes == 2 else 1
        if (
            type(row_bytes) is not int
            or not least <= row_bytes <= MAX_ROW_BYTES
            or (row_bytes % step)
        ):
            raise ValueError(
                f"row_bytes: got {row_bytes!r:.40}, and a row of {width} pixels of {name} has "
                f"{least} bytes: expected {least} to {MAX_ROW_BYTES}"
                f"{', an even number' if step == 2 else ''}"
            )
        if matrix not in MATRICES:
            raise ValueError(f"matrix: got '{matrix:.40}', expected {' or '.join(MATRICES)}")
        if range not in RANGES:
            raise ValueError(f"range: got '{range:.40}', expected {' or '.join(RANGES)}")
        allowed = BITS if form.sample_bytes == 2 else (8,)
        bits = allowed[-1] if bits is None else bits
        if bits not in allowed:
            raise ValueError(
                f"bits: got {bits!r:.40}, and a sample of {name} has "
                f"{' or '.join(map(str, allowed))}"
            )
        return PixelLayout(form, (height, width), row_bytes, matrix, range, bits)

    @property
    def rows(self) -> int:
        """Rows of `row_bytes` in the buffer; two of a chroma plane count as one."""
        height = self.size[0]
        return height + height // self.format.chroma_rows if self.format.chroma_rows else height

    @property
    def is_padded(self) -> bool:
        """Whether there are bytes between the rows."""
        return self.row_bytes != self.size[1] * self.format.pixel_bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the buffer as the graph takes it, uint8: [H, W, channels], or [rows, row_bytes]."""
        form = self.format
        if form.pixel_bytes > 2 and not self.is_padded:
            return (*self.size, form.pixel_bytes)
        return self.rows, self.row_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of a frame."""
        return self.rows * self.row_bytes

    @property
    def white(self) -> int:
        """The largest value of a sample."""
        return (1 << self.bits) - 1

    @property
    def weights(self) -> tuple[float, float, float]:
        """What red, green and blue count in luma."""
        red, blue = MATRICES[self.matrix]
        return red, 1 - red - blue, blue

    @property
    def yuv_scales(self) -> tuple[float, float, float]:
        """What luma begins at, and how many levels of 255 one of luma and of chroma is."""
        return (16.0, 255 / 219, 255 / 224) if self.range == "limited" else (0.0, 1.0, 1.0)

    def __str__(self) -> str:
        """Return what it is in a line."""
        height, width = self.size
        details = [f"{height}x{width}"]
        if self.format.is_yuv:
            details.append(f"{self.matrix} {self.range} range")
        if self.format.sample_bytes == 2:
            details.append(f"{self.bits} significant bits")
        if self.is_padded:
            details.append(f"rows of {self.row_bytes} bytes")
        return f"{self.format} {', '.join(details)}"

    def arithmetic(self) -> str:
        """Return how the bytes of a frame come about."""
        height = self.size[0]
        rows = f"{self.rows} rows"
        if self.format.chroma_rows:
            rows = f"{height} rows of luma and {self.rows - height} of chroma"
        return f"{self.size_bytes} bytes, {rows} of {self.row_bytes}"

    def expected(self) -> str:
        """Return what a user gives."""
        height, width = self.size
        wide = f", uint16[{height}, {width}]" if self.format.sample_bytes == 2 else ""
        return f"uint8{list(self.shape)}{wide} or a flat buffer of {self.arithmetic()} ({self})"

    def view(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a frame on the host as uint8 of `shape`, a view where it can be.

        Other shapes are returned as they came.

        Raises:
            FrameError: a sample is above the significant bits.
        """
        if self.format.sample_bytes == 2 and frame.dtype == _UINT16:
            is_whole = frame.shape[-2:] == self.size and frame.ndim in (2, 3)
            if not is_whole or self.is_padded:
                return frame
            frame = np.ascontiguousarray(frame).view(_UINT8)
        if frame.ndim == 1 and frame.dtype == _UINT8 and frame.size == self.size_bytes:
            frame = frame.reshape(self.shape)
        if self.bits % 8 and frame.shape[-2:] == self.shape and frame.dtype == _UINT8:
            self._check_values(frame)
        return frame

    def _check_values(self, frame: npt.NDArray[Any]) -> None:
        """Refuse samples above `white`: the high byte tells, as bits are 10, 12 or 14."""
        used = self.size[1] * 2
        highest = int(frame[..., 1:used:2].max())
        if highest > self.white >> 8:
            raise FrameError(
                f"frame: a sample's high byte is {highest}, so it is {highest << 8} or more, and "
                f"{self.bits} significant bits end at {self.white}. Build with the bits that the "
                "camera has (bits=), or shift the samples down where it aligns them to the top."
            )

    def to_json(self) -> dict[str, JsonValue]:
        """Return what `check` takes beside the size."""
        return {
            "pixel_format": self.format.name,
            "row_bytes": self.row_bytes,
            "matrix": self.matrix,
            "range": self.range,
            "bits": self.bits,
        }


def packed(order: str, size: tuple[int, int]) -> PixelLayout:
    """Return the layout of plain frames, uint8[H, W, 3], of channels "rgb" or "bgr"."""
    return PixelLayout.check(f"{order}8", size)
