"""Depth on the run side: camera frame in, metres for each pixel and a picture of them out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import Array, DType, Floats, Image
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, FrameDecoder, Region, check_same_frame
from edgevision.tasks.camera_task import CameraTask, marked_red
from edgevision.tasks.task import Headline, Read, Summary
from edgevision.tasks.timings import Timings

# Every 17th of the 256 colours of matplotlib's magma (van der Walt and Smith 2015, CC0), which is
# perceptually uniform; between them lines are within 2.2 of 255 of it.
_MAGMA = np.array(
    [
        list(bytes.fromhex(color))
        for color in "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d c43c75 de4968 f1605d "
        "fa7f5e fe9f6d febf84 fddea0 fcfdbf".split()
    ],
    np.float32,
)
_TABLE_SIZE = 256
# Of a picture's depths, so that one wild pixel does not take the colours from all others.
_SHOWN_PERCENTILES = (2.0, 98.0)
_TICKS = 5
# Depths further apart than this share of the first are drawn as different.
_NOTABLE = 0.05


@dataclass(frozen=True, slots=True)
class DepthResult:
    """How far what each pixel shows is away.

    Attributes:
        depth: float32[H, W] in metres, host; the caller's own. 0 where the camera was given a
            region, and the pixel is outside.
        timings: how long it took.
        region: top, left, height, width of what was looked at; None where it is all.
    """

    depth: Floats
    timings: Timings
    region: Region | None = None

    def range_m(self) -> tuple[float, float]:
        """Return the nearest and the furthest depth in metres, without the outermost 2 %."""
        near, far = np.percentile(self._measured(), _SHOWN_PERCENTILES)
        return float(near), float(far)

    def colored(self, near_m: float | None = None, far_m: float | None = None) -> Image:
        """Return the depths in colours, uint8[H, W, 3] RGB: bright is near, dark is far.

        Args:
            near_m: what is this near or nearer is brightest; by default the picture's own.
            far_m: what is this far or further is darkest; by default the picture's own.
        """
        near, far = self.range_m()
        near = near if near_m is None else near_m
        far = far if far_m is None else far_m
        share = (far - self.depth) / max(far - near, 1e-6)
        return _colors()[(share.clip(0, 1) * (_TABLE_SIZE - 1)).round().astype(np.uint8)]

    def with_scale(self) -> Image:
        """Return the depths in colours over a bar that says which colour is how many metres."""
        near, far = self.range_m()
        return np.concatenate([self.colored(near, far), _bar(near, far, self.depth.shape)])

    def summary(self) -> Summary:
        """Return the range and the median in metres."""
        near, far = self.range_m()
        median = float(np.median(self._measured()))
        fields: dict[str, object] = {"near_m": near, "median_m": median, "far_m": far}
        return Summary(f"{near:.2f} to {far:.2f} m, median {median:.2f} m", fields)

    def _measured(self) -> Floats:
        """Return the depths of what was looked at."""
        if self.region is None:
            return self.depth
        top, left, height, width = self.region
        return self.depth[top : top + height, left : left + width]

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the frame beside its depths in colours, with their scale beneath.

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        height, width = self.depth.shape
        check_same_frame(frame, (height, width))
        drawn = self.with_scale()
        beneath = np.full((drawn.shape[0] - height, width, 3), 255, np.uint8)
        return {".overlay.jpg": np.concatenate([np.concatenate([frame, beneath]), drawn], axis=1)}


@dataclass(frozen=True, slots=True)
class DepthDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `DepthResult`.

    Attributes:
        camera: the frame that the graph takes.
    """

    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> DepthResult:
        """Return the result of one inference; see `Decoder`."""
        depth = outputs["depth"][0].astype(np.float32)
        low, high = float(depth.min()), float(depth.max())  # NaN passes through both
        if not 0 <= low <= high < math.inf:
            raise FrameError(
                f"the engine gave depths from {low} to {high} m, expected finite ones from 0. Run "
                "`edgevision verify` on the bundle."
            )
        return DepthResult(depth, timings, self.camera.region)


class DepthTask(CameraTask[DepthResult]):
    """Metres for each pixel; held against its reference element by element."""

    name = "depth"
    headline = Headline("AbsRel", max_loss=0.01, is_higher_better=False)

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> DepthDecoder:
        """Return the decoder of one bundle; see `Task`."""
        stage, camera = self.read_camera(settings, stages, outputs=1)
        depth = stage.outputs[0]
        fits = depth.name == "depth" and depth.dtype in (DType.FLOAT32, DType.FLOAT16)
        if not fits or depth.shape != (1, *camera.size):
            raise BundleFormatError(
                f"task {self}: expected a frame of {camera.layout} -> depth float32[1, H, W] or "
                f"float16, got {stage.inputs[0]} -> {depth}"
            )
        return DepthDecoder(camera)

    def masks(self, result: DepthResult) -> dict[str, npt.NDArray[Any]]:
        """Return the depths in whole millimetres, at most 65535, as 16 bits hold them."""
        return {"depth_mm": np.rint(result.depth * 1e3).clip(0, 65535).astype(np.uint16)}

    def differs(self, before: DepthResult, after: DepthResult) -> npt.NDArray[np.bool_]:
        """Return bool[H, W]: where the depths are more than a twentieth apart."""
        apart = np.abs(after.depth - before.depth)
        found: npt.NDArray[np.bool_] = apart > _NOTABLE * np.maximum(before.depth, 1e-6)
        return found

    def difference(
        self, frame: Image, before: DepthResult, after: DepthResult
    ) -> tuple[float, Image]:
        """Return the share of pixels that differ; both in the same colours, and where in red."""
        where, span = self.differs(before, after), before.range_m()
        drawn = [result.colored(*span) for result in (before, after)]
        return float(where.mean()), np.concatenate([*drawn, marked_red(frame, where)], axis=1)


def _colors() -> Image:
    """Return uint8[256, 3]: magma, dark to bright."""
    places = np.linspace(0, len(_MAGMA) - 1, _TABLE_SIZE)
    anchors = np.arange(len(_MAGMA))
    columns = [np.interp(places, anchors, channel) for channel in _MAGMA.T]
    return np.stack(columns, 1).round().astype(np.uint8)


def _bar(near: float, far: float, shape: tuple[int, ...]) -> Image:
    """Return the scale as wide as a picture of `shape`: near on the left, metres beneath."""
    width, text = shape[1], max(9, shape[0] // 26)
    strip = text  # as high as the letters
    image = require("PIL.Image", extra="media").new("RGB", (width, strip + 2 * text), "white")
    font = require("PIL.ImageFont", extra="media").load_default(text)
    draw = require("PIL.ImageDraw", extra="media").Draw(image)
    # As many ticks as stand apart on a narrow picture.
    widest = draw.textlength(f"{far:.2f} m ", font=font)
    ticks = max(2, min(_TICKS, int(width // max(widest, 1.0))))
    for tick in range(ticks):
        share = tick / (ticks - 1)
        label = f"{near + (far - near) * share:.2f} m"
        x = share * (width - 1)
        draw.line((x, strip, x, strip + text // 3), "black")
        left = min(max(x - draw.textlength(label, font=font) / 2, 0), width)
        left = min(left, max(0, width - draw.textlength(label, font=font)))
        draw.text((left, strip + text // 2), label, "black", font)
    drawn = np.array(image)
    row = np.linspace(_TABLE_SIZE - 1, 0, width).round().astype(np.uint8)
    drawn[:strip] = _colors()[row]
    return drawn


TASK = DepthTask()
