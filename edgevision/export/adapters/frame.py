"""The pixel front end that all adapters share: camera frame in, what the net was trained on out.

Cast, channel order, layout, normalising and fitting to the net's size are part of the graph.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.export.adapters.registry import ClassNames, Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_COLOR = re.compile(r"#[0-9a-f]{6}")
_MAX_SIDE = 16384
_MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class CameraInput:
    """The frame that a graph takes, `uint8[N, *input_size, 3]`, and the net's own size.

    Attributes:
        size: (H, W) of the net's input.
        input_size: (H, W) of the camera's frame.
        channel_order: "rgb" or "bgr", the order in which the camera's frames will come.
        batch: frames in one call.
    """

    size: Size
    input_size: Size
    channel_order: str
    batch: int = 1

    @staticmethod
    def check(
        size: Size, input_size: Size | None, channel_order: str, batch: int = 1
    ) -> CameraInput:
        """Return what an adapter was given; without `input_size` the frame has the net's size.

        Raises:
            ValueError: an argument makes no sense.
        """
        net = check_size("size", size)
        frame = check_size("input_size", input_size) if input_size else net
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order: got '{channel_order}', expected rgb or bgr")
        if not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
            raise ValueError(f"batch: got {batch!r}, expected 1 to {_MAX_BATCH}")
        return CameraInput(net, frame, channel_order, batch)

    @property
    def tensor(self) -> TensorSpec:
        """The graph's input."""
        return TensorSpec("frame", DType.UINT8, (self.batch, *self.input_size, 3))

    @property
    def is_flipped(self) -> bool:
        """Whether the channels change places: nets see RGB."""
        return self.channel_order == "bgr"

    def settings(self) -> Settings:
        """Return the sizes and the channel order, for the manifest."""
        return {
            "size": list(self.size),
            "input_size": list(self.input_size),
            "channel_order": self.channel_order,
        }

    def zeros(self) -> Tensor:
        """Return a black frame, to try a module on."""
        return torch.zeros(self.tensor.shape, dtype=torch.uint8)


class FrontEnd(nn.Module):
    """From `uint8[N, *input_size, 3]` to the net's `float32[N, 3, *size]`; a base of fused graphs.

    A graph that is itself a `FrontEnd` calls `pixels` in its own `forward`.
    """

    scale: Tensor
    bias: Tensor
    order: Tensor

    def __init__(
        self,
        camera: CameraInput,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        fit: nn.Module | None = None,
    ) -> None:
        """Prepare the constants.

        Args:
            camera: the frame and the net's size.
            mean: per channel on the 0-1 scale, in RGB.
            std: per channel on the 0-1 scale, in RGB.
            fit: from the frame's size to the net's; by default the picture is stretched, bilinear.

        Raises:
            ValueError: `mean` or `std` makes no sense.
        """
        super().__init__()
        self.camera = camera
        means, stds = channel_values("mean", mean), channel_values("std", std)
        self.register_buffer("scale", (1 / (255 * stds)).view(1, 3, 1, 1))
        self.register_buffer("bias", (-means / stds).view(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 1, 0]))
        self.fit = Stretch(camera.size) if fit is None else fit

    def pixels(self, frame: Tensor) -> Tensor:
        """Return `float32[N, 3, *size]` of `frame: uint8[N, *input_size, 3]`."""
        # TensorRT takes uint8 at a Cast only, so the cast comes before any change of layout.
        x = frame.float().permute(0, 3, 1, 2)
        if self.camera.is_flipped:
            x = x.index_select(1, self.order)
        fitted: Tensor = self.fit(x * self.scale + self.bias)
        return fitted

    def forward(self, frame: Tensor) -> object:
        """Return what the graph gives; here the net's pixels."""
        return self.pixels(frame)


class Stretch(nn.Module):
    """Resizes to (H, W), bilinear without antialiasing, the aspect changed where it differs."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` at the size; itself where it has that size."""
        if tuple(x.shape[-2:]) == self.size:
            return x
        return interpolate(x, size=self.size, mode="bilinear", align_corners=False)


def class_labels(classes: ClassNames) -> tuple[tuple[str, str], ...]:
    """Return (name, "#rrggbb") of each class; ValueError if a name or colour makes no sense."""
    if isinstance(classes, str) or not 1 <= len(classes) <= 256:
        found = "a string" if isinstance(classes, str) else len(classes)
        raise ValueError(f"classes: got {found}, expected 1 to 256 names")
    labels = []
    for i, item in enumerate(classes):
        name, color = (item, _distinct_color(i)) if isinstance(item, str) else item
        if not name or not _COLOR.fullmatch(color.lower()):
            raise ValueError(f"classes: got {item!r}, expected a name or (name, '#rrggbb')")
        labels.append((name, color.lower()))
    if len({name for name, _ in labels}) != len(labels):
        raise ValueError("classes: a name stands twice")
    return tuple(labels)


def check_size(name: str, size: Size) -> Size:
    """Return (H, W); ValueError if that is not a picture's size."""
    if len(size) != 2 or not all(isinstance(s, int) and 1 <= s <= _MAX_SIDE for s in size):
        raise ValueError(f"{name}: got {size}, expected (height, width) in pixels")
    return size[0], size[1]


def channel_values(name: str, values: Sequence[float]) -> Tensor:
    """Return a number for each channel; ValueError if they make no sense."""
    good = len(values) == 3 and all(math.isfinite(v) for v in values)
    if not good or (name == "std" and min(values) <= 0):
        raise ValueError(f"{name}: got {values}, expected three numbers on the 0-1 scale")
    return torch.tensor([float(v) for v in values])


def _distinct_color(i: int) -> str:
    """Return a colour far from its neighbours: the golden angle around the hues, three shades."""
    hue = i * (math.sqrt(5) - 1) / 2 % 1
    r, g, b = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.7)[i % 3], (0.95, 0.8, 0.6)[i // 3 % 3])
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"
