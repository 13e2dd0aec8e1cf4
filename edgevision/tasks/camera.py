"""The camera's frame as a graph takes it, and the class labels that name what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevision.bundle.manifest import Settings
from edgevision.bundle.reading import Reader
from edgevision.bundle.tensors import DType, Image, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.frames import resize
from edgevision.tasks.interop import DeviceArray, import_array
from edgevision.tasks.pixel_formats import PixelLayout, packed
from edgevision.tasks.pixel_photos import frame_from_photo

Region = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the frame."""

VOID = 255
"""What class maps hold where the net does not look."""

_UINT8 = np.dtype(np.uint8)
_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """A class: its name, and its colour as "#rrggbb"."""

    name: str
    color: str


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """The frame that a graph takes, `uint8[1, ...]`, whatever the net behind it takes.

    Attributes:
        name: the graph's name for it.
        layout: what it is, and how it lies in memory.
        region: top, left, height, width of the part that is looked at; None where it is all.
    """

    name: str
    layout: PixelLayout
    region: Region | None = None

    @staticmethod
    def from_manifest(spec: TensorSpec, settings: Settings, task: str) -> CameraFrame:
        """Read it from a graph's input and the task's settings.

        Raises:
            BundleFormatError: the input is not a frame, or the settings do not describe it.
        """
        described = settings.get("camera")
        if described is None:
            return CameraFrame(spec.name, _packed(spec, settings, task))
        try:
            reader = Reader(described, "camera")
            layout = PixelLayout.check(
                reader.text("pixel_format"),
                Reader(settings, "settings").read("input_size", tuple[int, int]),
                row_bytes=reader.integer("row_bytes"),
                matrix=reader.text("matrix"),
                range=reader.text("range"),
                bits=reader.integer("bits"),
            )
            region = reader.read("region", Region) if "region" in reader.fields else None
        except ValueError as error:
            raise BundleFormatError(f"task {task}: {error}") from error
        if spec.dtype is not DType.UINT8 or spec.shape != (1, *layout.shape):
            raise BundleFormatError(
                f"task {task}: expected uint8{[1, *layout.shape]} for {layout}, got {spec}"
            )
        if region is not None and not _is_inside(region, layout.size):
            raise BundleFormatError(
                f"task {task}: the region {list(region)} is not in a frame of {layout.size}"
            )
        return CameraFrame(spec.name, layout, region)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.layout.size

    def feeds(self, frame: Any) -> dict[str, object]:
        """Return a frame as the graph takes it, a view with a batch axis.

        Taken are uint8 of the layout's shape, with and without that axis, a flat buffer of as many
        bytes, uint16[H, W] where samples have 16 bits, and such arrays of other libraries, on the
        host or the GPU.

        Raises:
            FrameError: it is not a frame of the layout.
        """
        layout = self.layout
        expected = layout.shape
        is_usual = type(frame) is np.ndarray and frame.dtype == _UINT8 and frame.shape == expected
        if is_usual and layout.bits == 8:
            return {self.name: frame[np.newaxis]}  # what nearly every frame is
        if isinstance(frame, Mapping):
            raise FrameError("got a dict, expected one frame as a numpy array uint8[H, W, 3]")
        # Arrays of other libraries that have axes are imported, and their dtype is checked, later.
        if not hasattr(frame, "__dlpack_device__") or not hasattr(frame, "ndim"):
            frame = import_array(frame, TensorSpec(self.name, DType.UINT8, expected))
        if isinstance(frame, np.ndarray):
            frame = layout.view(frame)
        is_ours = isinstance(frame, np.ndarray | DeviceArray)
        shape = tuple(frame.shape)
        if isinstance(frame, DeviceArray) and shape == (layout.size_bytes,):
            shape = expected
        if shape not in (expected, (1, *expected)) or (is_ours and frame.dtype != _UINT8):
            raise FrameError(
                f"frame: got {frame.dtype}{list(shape)}, expected a numpy array "
                f"{self._expected()}. Convert or resize it."
            )
        if isinstance(frame, DeviceArray):
            return {self.name: replace(frame, shape=(1, *expected))}
        return {self.name: frame if len(shape) == len(expected) + 1 else frame[np.newaxis]}

    def fit(self, pixels: Image) -> Image:
        """Return a picture, uint8[h, w, 3] RGB, resized and as the camera would have given it."""
        return frame_from_photo(resize(pixels, self.size), self.layout)

    def _expected(self) -> str:
        if self.layout.format.pixel_bytes == 3 and not self.layout.is_padded:
            return f"uint8{list(self.layout.shape)} ({self.layout.format.order.upper()})"
        return self.layout.expected()


def _packed(spec: TensorSpec, settings: Settings, task: str) -> PixelLayout:
    shape = spec.shape
    if len(shape) != 4 or (shape[0], shape[3]) != (1, 3) or spec.dtype is not DType.UINT8:
        raise BundleFormatError(f"task {task}: expected uint8[1, H, W, 3], got {spec}")
    order = settings.get("channel_order")
    if order not in ("rgb", "bgr"):
        raise BundleFormatError(f"task {task}: channel_order is {order!r:.40}, expected rgb or bgr")
    try:
        return packed(str(order), (shape[1], shape[2]))
    except ValueError as error:
        raise BundleFormatError(f"task {task}: {error}") from error


def _is_inside(region: Sequence[int], size: tuple[int, int]) -> bool:
    top, left, height, width = region
    return (
        min(top, left) >= 0
        and min(height, width) > 0
        and (top + height <= size[0] and left + width <= size[1])
    )


class FrameDecoder:
    """What decoders share that take one frame; each has a field `camera` of its own."""

    __slots__ = ()

    camera: CameraFrame

    def feeds(self, frame: Image) -> dict[str, object]:
        """Return `frame: uint8[H, W, 3]` as the graph takes it (a view)."""
        return self.camera.feeds(frame)


def read_class_labels(settings: Settings, task: str) -> tuple[ClassLabel, ...]:
    """Read the class labels out of a manifest; BundleFormatError if they are none."""
    classes = settings.get("classes")
    if not isinstance(classes, list) or not 1 <= len(classes) <= 256:
        raise BundleFormatError(f"task {task}: expected a list of 1 to 256 classes")
    return tuple(_label(item, task) for item in classes)


def check_same_frame(frame: Image, size: tuple[int, int], *, was: str = "run") -> None:
    """Refuse to draw on anything but a frame of the size that was run.

    Raises:
        FrameError: `frame` is not uint8[H, W, 3] of `size`.
    """
    if frame.dtype != np.uint8 or frame.shape != (*size, 3):
        raise FrameError(
            f"frame: got {frame.dtype}{list(frame.shape)}, expected the frame that was {was}, "
            f"uint8{[*size, 3]}"
        )


def _label(item: object, task: str) -> ClassLabel:
    name = item.get("name") if isinstance(item, dict) else None
    color = item.get("color") if isinstance(item, dict) else None
    if not isinstance(name, str) or not isinstance(color, str) or not _COLOR.fullmatch(color):
        raise BundleFormatError(f"task {task}: expected {{name, color: #rrggbb}}, got {item!r:.80}")
    return ClassLabel(name, color)
