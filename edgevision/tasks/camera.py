"""The camera's frame as a graph takes it, and the class labels that name what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.frames import resize
from edgevision.tasks.interop import DeviceArray, import_array

Image = npt.NDArray[np.uint8]

_UINT8 = np.dtype(np.uint8)
_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """A class: its name, and its colour as "#rrggbb"."""

    name: str
    color: str


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """The frame that a graph takes: `uint8[1, H, W, 3]`, whatever the net behind it takes.

    Attributes:
        name: the graph's name for it.
        size: (H, W).
        channel_order: "rgb" or "bgr".
    """

    name: str
    size: tuple[int, int]
    channel_order: str

    @staticmethod
    def from_manifest(spec: TensorSpec, settings: Settings, task: str) -> CameraFrame:
        """Read it from a graph's input and the task's settings.

        Raises:
            BundleFormatError: the input is not a frame, or the channel order is unknown.
        """
        shape = spec.shape
        if len(shape) != 4 or (shape[0], shape[3]) != (1, 3) or spec.dtype is not DType.UINT8:
            raise BundleFormatError(f"task {task}: expected uint8[1, H, W, 3], got {spec}")
        order = settings.get("channel_order")
        if order not in ("rgb", "bgr"):
            raise BundleFormatError(
                f"task {task}: channel_order is {order!r:.40}, expected rgb or bgr"
            )
        return CameraFrame(spec.name, (shape[1], shape[2]), str(order))

    def feeds(self, frame: Any) -> dict[str, object]:
        """Return `frame: uint8[H, W, 3]` as the graph takes it, a view with a batch axis.

        A frame that has that axis, uint8[1, H, W, 3], is taken as it is; so are arrays of other
        libraries, on the host or the GPU, with and without it.

        Raises:
            FrameError: it is not a frame of `size`.
        """
        expected = (*self.size, 3)
        if type(frame) is np.ndarray and frame.dtype == _UINT8 and frame.shape == expected:
            return {self.name: frame[np.newaxis]}  # what nearly every frame is
        if isinstance(frame, Mapping):
            raise FrameError("got a dict, expected one frame as a numpy array uint8[H, W, 3]")
        # Arrays of other libraries that have axes are imported, and their dtype is checked, later.
        if not hasattr(frame, "__dlpack_device__") or not hasattr(frame, "ndim"):
            frame = import_array(frame, TensorSpec(self.name, DType.UINT8, expected))
        is_ours = isinstance(frame, np.ndarray | DeviceArray)
        shape = tuple(frame.shape)
        if shape not in (expected, (1, *expected)) or (is_ours and frame.dtype != _UINT8):
            raise FrameError(
                f"frame: got {frame.dtype}{list(shape)}, expected a numpy array "
                f"uint8{list(expected)} ({self.channel_order.upper()}). Convert or resize it."
            )
        if len(shape) == 4:
            return {self.name: frame}
        if isinstance(frame, DeviceArray):
            return {self.name: replace(frame, shape=(1, *expected))}
        return {self.name: frame[np.newaxis]}

    def fit(self, pixels: Image) -> Image:
        """Return a picture, uint8[h, w, 3] RGB, resized and in the graph's channel order."""
        resized = resize(pixels, self.size)
        if self.channel_order == "bgr":
            resized = resized[..., ::-1]
        return np.ascontiguousarray(resized)


class FrameDecoder:
    """What decoders share that take one frame; each has a field `camera` of its own."""

    __slots__ = ()

    camera: CameraFrame

    def feeds(self, frame: Image) -> dict[str, object]:
        """Return `frame: uint8[H, W, 3]` as the graph takes it (a view)."""
        return self.camera.feeds(frame)


def classes_of(settings: Settings, task: str) -> tuple[ClassLabel, ...]:
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
