"""The pixel front end that all adapters share: camera frame in, what the net was trained on out.

Cast, channel order, layout, normalising and fitting to the net's size are part of the graph.
"""

from __future__ import annotations

import colorsys
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgevision.bundle.manifest import Settings
from edgevision.bundle.reading import JsonValue
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.export.adapters.fit import FITS, PAD_VALUE, Placement, Region
from edgevision.export.adapters.pixels import PixelReader
from edgevision.export.adapters.registry import ClassNames, Size
from edgevision.tasks.cameras import MAX_CAMERAS, Count
from edgevision.tasks.pixel_formats import PixelLayout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Cameras = int | Count | None
"""How many cameras' frames come in one call; see `CameraInput.check`."""

_COLOR = re.compile(r"#[0-9a-f]{6}")
_MAX_SIDE = 16384
_PIXEL_OPS = (
    "Cast", "Reshape", "Transpose", "Slice", "Gather", "Squeeze", "Unsqueeze", "Mul", "Add", "Sub",
    "Min", "Max", "Clip", "Concat", "Split", "Pad", "Resize",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera as an adapter takes it: what its driver hands over, and how that meets the net.

    Attributes:
        size: (H, W) of its frames in pixels; None for the net's own.
        pixel_format: "rgb8", "bgr8", "rgba8", "bgra8", "gray8", "gray16", "nv12", "nv21", "i420",
            "yuyv", "uyvy", or a Bayer mosaic, "rggb8" or "rggb16", also bggr, grbg and gbrg.
        row_bytes: from one row to the next, where the driver pads rows; by default it does not.
        matrix: of YUV, "bt601" or "bt709"; the first where a driver does not say, as V4L2 has it.
        range: of YUV, "limited" or "full".
        bits: significant bits of 16-bit samples, 10, 12, 14 or 16, in the low bits of the number.
        fit: how frames of another size than the net's meet it: "stretch", "letterbox" or "crop".
        pad_value: what the bars of a letterbox hold, 0 to 255.
        region: top, left, height, width: the part of the frame that is looked at; by default all,
            or with "crop" the middle.

    Example:
        >>> Camera(size=(1080, 1920), pixel_format="nv12", fit="letterbox")  # doctest: +SKIP
    """

    size: Size | None = None
    pixel_format: str = "rgb8"
    row_bytes: int | None = None
    matrix: str = "bt601"
    range: str = "limited"
    bits: int | None = None
    fit: str | None = None
    pad_value: int = PAD_VALUE
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class CameraInput:
    """The frame that a graph takes, and the net's own size.

    Attributes:
        size: (H, W) of the net's input.
        layout: of the camera's frame.
        placement: where what the net looks at lies in its input.
        is_fit_given: whether the user chose how the frame meets the net.
        cameras: the fewest and the most whose frames come in one call; None for one frame.
    """

    size: Size
    layout: PixelLayout
    placement: Placement
    is_fit_given: bool = False
    cameras: Count | None = None

    @staticmethod
    def check(
        size: Size,
        input_size: Size | None,
        channel_order: str,
        camera: Camera | None = None,
        *,
        cameras: Cameras = None,
    ) -> CameraInput:
        """Return what an adapter was given; without `input_size` the frame has the net's size.

        Args:
            size: (H, W) of the net's input.
            input_size: (H, W) of the camera's frame, if it is not `size`.
            channel_order: "rgb" or "bgr".
            camera: what the camera gives, in place of the two before.
            cameras: how many cameras' frames come in one call: a number, or the fewest and the
                most; None for one frame, whose answer is not a list.

        Raises:
            ValueError: an argument makes no sense.
        """
        net = check_size("size", size)
        if camera is not None and (input_size is not None or channel_order != "rgb"):
            raise ValueError(
                "camera: it says the frame's size and channel order itself; leave input_size and "
                "channel_order out"
            )
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order: got '{channel_order}', expected rgb or bgr")
        given = camera or Camera(input_size, f"{channel_order}8")
        frame = net if given.size is None else check_size("input_size", given.size)
        layout = PixelLayout.check(
            given.pixel_format,
            frame,
            row_bytes=given.row_bytes,
            matrix=given.matrix,
            range=given.range,
            bits=given.bits,
        )
        placement = Placement.check(
            given.fit or FITS[0],
            frame,
            net,
            layout.format,
            region=given.region,
            pad_value=given.pad_value,
        )
        is_fit_given = given.fit is not None or given.region is not None
        return CameraInput(net, layout, placement, is_fit_given, _count(cameras))

    @property
    def input_size(self) -> Size:
        """(H, W) of the camera's frame."""
        return self.layout.size

    @property
    def tensor(self) -> TensorSpec:
        """The graph's input."""
        first = DYNAMIC if self.profiles else self.batch
        return TensorSpec("frame", DType.UINT8, (first, *self.layout.shape))

    @property
    def batch(self) -> int:
        """Frames in one call, at most."""
        return 1 if self.cameras is None else self.cameras[1]

    @property
    def profiles(self) -> dict[str, ShapeProfile]:
        """Bounds of the graph's input, where the number of cameras is left open."""
        if self.cameras is None or self.cameras[0] == self.cameras[1]:
            return {}
        shape, (least, most) = self.layout.shape, self.cameras
        return {"frame": ShapeProfile((least, *shape), (most, *shape), (most, *shape))}

    @property
    def is_packed(self) -> bool:
        """Whether the frame is `uint8[H, W, 3]`."""
        return self.layout.format.pixel_bytes == 3 and not self.layout.is_padded

    @property
    def is_flipped(self) -> bool:
        """Whether the channels change places: nets see RGB."""
        return self.layout.format.order == "bgr"

    @property
    def is_stretched(self) -> bool:
        """Whether the whole frame fills the net's input."""
        return self.placement.is_whole and self.placement.is_filled

    def settings(self, *, own_fit: str | None = None) -> Settings:
        """Return the sizes and what the frame is, for the manifest.

        Args:
            own_fit: what a task's own way from the frame to the net is called, where it has one.
        """
        found: dict[str, JsonValue] = {
            "size": list(self.size),
            "input_size": list(self.input_size),
        }
        if self.is_packed:
            found["channel_order"] = self.layout.format.order
        if not self.is_packed or not self.is_stretched:
            way = self.placement.settings() if own_fit is None else {"fit": own_fit}
            found["camera"] = {**self.layout.to_json(), **way}
        if self.cameras is not None:
            found["cameras"] = list(self.cameras) if self.profiles else self.batch
        return found

    def zeros(self) -> Tensor:
        """Return a black frame, to try a module on."""
        return torch.zeros(self.batch, *self.layout.shape, dtype=torch.uint8)

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return the nodes that read samples of more than eight bits: float16 has eleven."""
        if self.layout.bits == 8:
            return []
        reached, kept = {self.tensor.name}, []
        for node in graph.graph.node:
            if node.op_type in _PIXEL_OPS and reached & set(node.input):
                reached.update(node.output)
                kept.append(node.name)
        return kept


class FrontEnd(nn.Module):
    """From a camera's frame to the net's `float32[N, 3, *size]`; a base of fused graphs.

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
            camera: the frame, the net's size, and how they meet.
            mean: per channel on the 0-1 scale, in RGB.
            std: per channel on the 0-1 scale, in RGB.
            fit: from the frame's size to the net's, in place of the camera's own way.

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
        self.has_own_fit = fit is not None
        self.reader = PixelReader(camera.layout)

    def pixels(self, frame: Tensor) -> Tensor:
        """Return `float32[N, 3, *size]` of a frame as the graph takes it."""
        camera, placement = self.camera, self.camera.placement
        if camera.is_packed and (self.has_own_fit or camera.is_stretched):
            # TensorRT takes uint8 at a Cast only, so the cast comes before any change of layout.
            x = frame.float().permute(0, 3, 1, 2)
            if camera.is_flipped:
                x = x.index_select(1, self.order)
        elif self.has_own_fit:
            x = self.reader.whole(frame)
        else:
            planes = [placement.resize(x) for x in self.reader.planes(frame, placement.region)]
            return placement.with_bars(self.reader.rgb(planes)) * self.scale + self.bias
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


def labels_json(labels: Sequence[tuple[str, str]]) -> list[JsonValue]:
    """Return class labels for the manifest."""
    return [{"name": name, "color": color} for name, color in labels]


def check_size(name: str, size: Size) -> Size:
    """Return (H, W); ValueError if that is not a picture's size."""
    if len(size) != 2 or not all(isinstance(s, int) and 1 <= s <= _MAX_SIDE for s in size):
        raise ValueError(f"{name}: got {size}, expected (height, width) in pixels")
    return size[0], size[1]


def replaced_batch(batch: int | None, cameras: Cameras) -> Cameras:
    """Return `cameras`, or what `batch`, which it was called before 0.2, says of it."""
    if batch is None:
        return cameras
    warnings.warn("batch= is now cameras=, and goes in 0.3", DeprecationWarning, stacklevel=3)
    return batch


def _count(cameras: Cameras) -> Count | None:
    """Return the fewest and the most; ValueError if they make no sense."""
    if cameras is None:
        return None
    ends = tuple(cameras) if isinstance(cameras, tuple | list) else (cameras, cameras)
    if len(ends) != 2 or not all(type(n) is int for n in ends):
        raise ValueError(f"cameras: got {cameras!r:.60}, expected a number, or (fewest, most)")
    if not 1 <= ends[0] <= ends[1] <= MAX_CAMERAS:
        raise ValueError(f"cameras: got {cameras!r:.60}, expected 1 to {MAX_CAMERAS}, fewest first")
    return ends[0], ends[1]


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
