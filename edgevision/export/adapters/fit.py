"""How a camera's frame meets the net's size: stretched, with bars around, or a part of it cut out.

Answers go the way back: what the net says of its own input becomes an answer in the frame's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from edgevision.bundle.manifest import Settings
from edgevision.export.adapters.registry import Size
from edgevision.tasks.pixel_formats import PixelFormat

FITS = ("stretch", "letterbox", "crop")
PAD_VALUE = 114
"""Of the bars around a letterbox: the grey that YOLO nets were trained with."""

Region = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which part of the frame the net looks at, and where in its input that lies.

    Attributes:
        frame: (H, W) of the camera's frame.
        net: (H, W) of the net's input.
        region: what is looked at, in the frame's pixels.
        inner: where it lies, in the net's pixels; around it are bars.
        name: one of `FITS`.
        pad_value: what the bars hold, 0 to 255.
    """

    frame: Size
    net: Size
    region: Region
    inner: Region
    name: str = "stretch"
    pad_value: int = PAD_VALUE

    @staticmethod
    def check(
        name: str,
        frame: Size,
        net: Size,
        form: PixelFormat,
        *,
        region: Region | None = None,
        pad_value: int = PAD_VALUE,
    ) -> Placement:
        """Return the placement.

        Args:
            name: "stretch": the whole net's input, the aspect changed; "letterbox": the aspect
                kept, bars around; "crop": the aspect kept, what is too long cut off.
            frame: (H, W) of the camera's frame.
            net: (H, W) of the net's input.
            form: of the frame; regions are multiples of its steps.
            region: top, left, height and width of what is looked at; by default all, or of a crop
                the middle.
            pad_value: what the bars of a letterbox hold.

        Raises:
            ValueError: an argument makes no sense.
        """
        if name not in FITS:
            raise ValueError(f"fit: got '{name:.40}', expected {', '.join(FITS)}")
        if type(pad_value) is not int or not 0 <= pad_value <= 255:
            raise ValueError(f"pad_value: got {pad_value!r:.40}, expected 0 to 255")
        if region is not None:
            _check_region(region, frame, form)
        whole = (0, 0, *frame)
        looked_at = region or (_middle(frame, net, form) if name == "crop" else whole)
        inner = (0, 0, *net)
        if name == "letterbox":
            scale = min(n / r for n, r in zip(net, looked_at[2:], strict=True))
            height, width = (
                min(n, max(1, round(r * scale))) for n, r in zip(net, looked_at[2:], strict=True)
            )
            inner = ((net[0] - height) // 2, (net[1] - width) // 2, height, width)
        return Placement(frame, net, looked_at, inner, name, pad_value)

    @property
    def is_whole(self) -> bool:
        """Whether all of the frame is looked at."""
        return self.region == (0, 0, *self.frame)

    @property
    def is_filled(self) -> bool:
        """Whether the net's input has no bars."""
        return self.inner == (0, 0, *self.net)

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the frame for one of the net's, along the height and the width."""
        return self.region[2] / self.inner[2], self.region[3] / self.inner[3]

    def resize(self, x: Tensor) -> Tensor:
        """Return what is looked at, any plane of it, as large as it is in the net's input."""
        return _resized(x, self.inner[2:])

    def with_bars(self, x: Tensor) -> Tensor:
        """Return `x` of the inner size with the bars around it."""
        if self.is_filled:
            return x
        return pad(x, self._around(self.inner, self.net), value=float(self.pad_value))

    def back(self, y: Tensor) -> Tensor:
        """Return maps that the net gave, float32[N, C, h, w], as large as what is looked at."""
        if not self.is_filled:
            if any(at * side % full for at, side, full in self._cuts(y)):
                y = _resized(y, self.net)
            (top, down), (left, right) = (
                (at * side // full, (at + length) * side // full)
                for at, length, side, full in zip(
                    self.inner[:2], self.inner[2:], y.shape[-2:], self.net, strict=True
                )
            )
            y = y[..., top:down, left:right]
        return _resized(y, self.region[2:])

    def on_frame(self, y: Tensor, value: int) -> Tensor:
        """Return `y` of what is looked at on the whole frame, `value` around it."""
        if self.is_whole:
            return y
        return pad(y, self._around(self.region, self.frame), value=value)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Return x1 y1 x2 y2 in pixels of the net's input as pixels of the frame."""
        (top, left), (down, right) = self.inner[:2], self.region[:2]
        height, width = self.scales
        inner = torch.tensor([left, top, left, top], dtype=boxes.dtype)
        scale = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        region = torch.tensor([right, down, right, down], dtype=boxes.dtype)
        return (boxes - inner) * scale + region

    def bounds(self) -> tuple[int, int, int, int]:
        """Return x1 y1 x2 y2 of the part of the net's input that shows the frame."""
        top, left, height, width = self.inner
        return left, top, left + width, top + height

    def settings(self) -> Settings:
        """Return the way for the manifest, as far as it is not that of every frame."""
        found: dict[str, object] = {"fit": self.name}
        if not self.is_whole:
            found["region"] = list(self.region)
        if not self.is_filled:
            found |= {"inner": list(self.inner), "pad_value": self.pad_value}
        return found  # type: ignore[return-value]

    def _cuts(self, y: Tensor) -> list[tuple[int, int, int]]:
        edges = (self.inner[0], self.inner[0] + self.inner[2]), (
            self.inner[1], self.inner[1] + self.inner[3])  # fmt: skip
        return [
            (at, int(side), full)
            for pair, side, full in zip(edges, y.shape[-2:], self.net, strict=True)
            for at in pair
        ]

    @staticmethod
    def _around(part: Region, whole: Size) -> tuple[int, int, int, int]:
        """Return what lies left, right, above and below, as `pad` takes it."""
        top, left, height, width = part
        return left, whole[1] - left - width, top, whole[0] - top - height


def _resized(x: Tensor, size: Size) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return interpolate(x, size=size, mode="bilinear", align_corners=False)


def _middle(frame: Size, net: Size, form: PixelFormat) -> Region:
    """Return the largest part in the middle of the frame that has the net's aspect."""
    scale = min(f / n for f, n in zip(frame, net, strict=True))
    sides = [
        max(step, min(round(n * scale), f) // step * step)
        for f, n, step in zip(frame, net, form.steps, strict=True)
    ]
    begins = [
        (f - side) // 2 // step * step
        for f, side, step in zip(frame, sides, form.steps, strict=True)
    ]
    return begins[0], begins[1], sides[0], sides[1]


def _check_region(region: Region, frame: Size, form: PixelFormat) -> None:
    if len(region) != 4 or not all(type(value) is int for value in region):
        raise ValueError(f"region: got {region!r:.60}, expected top, left, height, width in pixels")
    top, left, height, width = region
    if (
        min(top, left) < 0
        or min(height, width) < 1
        or (top + height > frame[0] or left + width > frame[1])
    ):
        raise ValueError(
            f"region: got {list(region)}, which ends at row {top + height} and column "
            f"{left + width}; the frame has {frame[0]}x{frame[1]}"
        )
    rows, columns = form.steps
    if top % rows or height % rows or left % columns or width % columns:
        raise ValueError(
            f"region: got {list(region)}; {form} shares colour among {rows}x{columns} pixels, so "
            f"rows are multiples of {rows} and columns of {columns}"
        )
