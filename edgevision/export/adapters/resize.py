"""Resizing as classifiers are fed: antialiased, the short side first, then the middle cut out.

Written as two products with constant matrices, one for the rows and one for the columns: TensorRT's
Resize has no antialiasing, and nets are trained on pictures that had it. The triangle filter is
that of Pillow and of torchvision's `resize(antialias=True)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgevision.export.adapters.frame import CameraInput

Size = tuple[int, int]


def middle_of(
    camera: CameraInput, side: int | None, *, name: str = "resize_side"
) -> ResizeCrop | None:
    """Return the way of classifiers from a frame to the net; None where the camera has its own.

    Args:
        camera: the frame and the net's size.
        side: short side of the frame before its middle is cut out, if it was given.
        name: what the side is called in messages.

    Raises:
        ValueError: both ways were given, or the side is too small.
    """
    if camera.is_fit_given:
        if side is not None:
            raise ValueError(f"{name}: the camera's fit is '{camera.placement.name}'; give one")
        return None
    if camera.size == camera.input_size and side is None:
        return None
    return ResizeCrop(camera.input_size, camera.size, side)


class ResizeCrop(nn.Module):
    """float32[N, C, *input_size] to float32[N, C, *size]."""

    name = "middle"
    rows: Tensor
    columns: Tensor

    def __init__(self, input_size: Size, size: Size, resize: int | None = None) -> None:
        """Prepare the matrices.

        Args:
            input_size: (H, W) of the picture.
            size: (H, W) of the part that is kept.
            resize: the short side before the middle is cut out; by default the smallest at which
                the picture covers `size`.

        Raises:
            ValueError: the resized picture would be smaller than `size`.
        """
        super().__init__()
        resized = _resized(input_size, size, resize)
        if resized[0] < size[0] or resized[1] < size[1]:
            raise ValueError(
                f"resize: got {resize}, which makes {resized[0]}x{resized[1]} of "
                f"{input_size[0]}x{input_size[1]}, less than size {size[0]}x{size[1]}"
            )
        rows, columns = (
            _weights(have, want)[_first(want, kept) :][:kept]
            for have, want, kept in zip(input_size, resized, size, strict=True)
        )
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return the picture at its new size."""
        return self.rows @ (x @ self.columns)


def _resized(input_size: Size, size: Size, resize: int | None) -> Size:
    height, width = input_size
    if resize is None:
        scale = max(size[0] / height, size[1] / width)
        return round(height * scale), round(width * scale)
    short = min(input_size)
    return resize * height // short, resize * width // short


def _first(resized: int, kept: int) -> int:
    """Return where the middle begins, as torchvision's `center_crop` rounds it."""
    return round((resized - kept) / 2)


def _weights(have: int, want: int) -> Tensor:
    """Return float32[want, have]: how much of each pixel goes into each new one."""
    scale = have / want
    support = max(scale, 1.0)
    weights = torch.zeros(want, have, dtype=torch.float64)
    for row in range(want):
        centre = (row + 0.5) * scale
        low = max(0, math.floor(centre - support + 0.5))
        high = min(have, math.floor(centre + support + 0.5))
        places = torch.arange(low, high, dtype=torch.float64)
        part = (1 - ((places + 0.5 - centre) / support).abs()).clamp(min=0)
        weights[row, low:high] = part / part.sum()
    return weights.float()
