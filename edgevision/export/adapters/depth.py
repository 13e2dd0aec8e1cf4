"""A depth net with its pixels: camera frame in, metres for each pixel out, one graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.output import first_tensor, try_module
from edgevision.export.adapters.registry import Given, Size
from edgevision.export.zoo import card_size
from edgevision.tasks.depth import TASK

OUTPUTS = ("float32", "float16")
_NAMES = ("predicted_depth", "depth", "out")
_MAX_HALF = 65504.0


class Depth(FrameAdapter["_PixelsToMetres"]):
    """Adapter of any module that gives one number for each pixel, `float32[N, 1, h, w]`.

    The graph takes `frame: uint8[1, H, W, 3]` of `input_size` and gives `depth: float32[1, H, W]`
    in metres. Casting, normalising, resizing to the net's `size`, the scale, resizing back and the
    bounds are inside it. The module is used, never changed.

    Example:
        >>> net = Depth(module, size=(384, 384), input_size=(480, 640),
        ...             max_m=80.0)  # doctest: +SKIP
    """

    task = TASK.name

    def __init__(
        self,
        module: nn.Module,
        *,
        size: Size,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channel_order: str = "rgb",
        input_size: Size | None = None,
        scale: float = 1.0,
        max_m: float | None = None,
        output: str = "float32",
        camera: Camera | None = None,
        cameras: Cameras = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: gives `float32[N, 1, h, w]` or `[N, h, w]` as a tensor, a dict or an object with
                `predicted_depth`, `depth` or `out`, or a tuple of which the first is taken.
            size: (H, W) of the net's input.
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            channel_order: "rgb" or "bgr", the order in which the camera's frames will come.
            input_size: (H, W) of the camera's frame, if it is not `size`.
            scale: metres for each unit of the net's output.
            max_m: depths beyond are set to it; by default none are.
            output: "float32", or "float16": half the bytes from the device to the host, three
                digits.
            camera: what the camera gives, in place of `channel_order` and `input_size`; where a
                part of the frame is left out, its depth is 0.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or gives something else.
        """
        camera_input = CameraInput.check(size, input_size, channel_order, camera, cameras=cameras)
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale: got {scale}, expected metres for each unit, over 0")
        if max_m is not None and not (math.isfinite(max_m) and max_m > 0):
            raise ValueError(f"max_m: got {max_m}, expected metres over 0")
        if output not in OUTPUTS:
            raise ValueError(f"output: got '{output}', expected one of {', '.join(OUTPUTS)}")
        if output == "float16" and not (max_m is not None and max_m <= _MAX_HALF):
            raise ValueError(f"output: float16 ends at {_MAX_HALF:g}; give max_m up to it, too")
        graph = _PixelsToMetres(
            module, camera_input, mean, std, scale=scale, max_m=max_m, output=output
        )
        super().__init__(camera_input, graph, ["depth"])
        try_module(self._graph, self._graph.measured, self._camera)


class _PixelsToMetres(FrontEnd):
    """The fused graph around the user's module."""

    def __init__(
        self,
        module: nn.Module,
        camera: CameraInput,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        scale: float,
        max_m: float | None,
        output: str,
    ) -> None:
        super().__init__(camera, mean, std)
        self.module = module
        self.metres, self.max_m, self.is_half = scale, max_m, output == "float16"

    def measured(self, frame: Tensor) -> Tensor:
        """Return what the net gives, `float32[N, 1, h, w]`."""
        return self._maps(self.module(self.pixels(frame)))

    def _maps(self, found: object) -> Tensor:
        y = first_tensor(found, names=_NAMES, what="depths")
        y = y[:, None] if y.ndim == 3 else y
        if y.ndim != 4 or y.shape[1] != 1:
            raise ExportError(
                f"the module gives {list(y.shape)}, expected one number for each pixel, "
                "[N, 1, h, w] or [N, h, w]"
            )
        return y

    def forward(self, frame: Tensor) -> Tensor:
        return self.answer(self.measured(frame))

    def answer(self, found: object) -> Tensor:
        """Return the metres of what the net gives."""
        y = self._maps(found)
        if self.metres != 1.0:
            y = y * self.metres
        y = self.camera.placement.back(y).relu()
        if self.max_m is not None:
            y = y.clamp(max=self.max_m)
        y = self.camera.placement.on_frame(y, 0)
        return (y.half() if self.is_half else y)[:, 0]


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> Depth:
    """Return the adapter of a shipped net; see `registry`."""
    own = {name: card[name] for name in ("mean", "std", "scale", "max_m") if name in card}
    return Depth(module, **{"size": card_size(card), **own, **given})


ADAPTER = Depth
