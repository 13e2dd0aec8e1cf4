"""What tasks that take a camera's frame share: class labels, channel order, the frame as a feed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings
from edgevision.errors import BundleFormatError, FrameError

Image = npt.NDArray[np.uint8]

_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """A class: its name, and its colour as "#rrggbb"."""

    name: str
    color: str


def classes_of(settings: Settings, task: str) -> tuple[ClassLabel, ...]:
    """Read the class labels out of a manifest; BundleFormatError if they are none."""
    classes = settings.get("classes")
    if not isinstance(classes, list) or not 1 <= len(classes) <= 256:
        raise BundleFormatError(f"task {task}: expected a list of 1 to 256 classes")
    return tuple(_label(item, task) for item in classes)


def order_of(settings: Settings, task: str) -> str:
    """Read the channel order out of a manifest; BundleFormatError if it is none."""
    order = settings.get("channel_order")
    if order not in ("rgb", "bgr"):
        raise BundleFormatError(f"task {task}: channel_order is {order!r:.40}, not rgb or bgr")
    return str(order)


def feed_of(frame: Any, name: str, size: tuple[int, int], order: str) -> dict[str, object]:
    """Return `frame: uint8[H, W, 3]` as the graph takes it, a view with a batch axis.

    Raises:
        FrameError: it is no frame.
    """
    if isinstance(frame, Mapping):
        raise FrameError("got a dict, expected one frame as a numpy array uint8[H, W, 3]")
    if not hasattr(frame, "ndim"):
        return {name: frame}  # another library's array, with its batch axis
    if frame.ndim != 3:
        raise FrameError(
            f"frame: got {frame.shape}, expected a numpy array uint8{[*size, 3]} ({order.upper()})"
        )
    return {name: frame[np.newaxis]}


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
