"""Photos as a camera would have given them, and a camera's frames as photos: numpy, on the host.

For calibration, evaluation and pictures of answers. What a model is fed is converted in its graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import Floats, Image
from edgevision.tasks.pixel_formats import PixelLayout

_RGB = "rgb"


def frame_from_photo(photo: Image, layout: PixelLayout) -> Image:
    """Return a photo, uint8[H, W, 3] RGB of the layout's size, as uint8 of the layout's shape."""
    form = layout.format
    height, width = layout.size
    if form.is_yuv:
        lines = _yuv_lines(photo, layout)
    elif form.is_mosaic:
        mosaic = np.empty((height, width), np.uint8)
        for place, color in enumerate(form.order):
            y, x = divmod(place, 2)
            mosaic[y::2, x::2] = photo[y::2, x::2, _RGB.index(color)]
        lines = _samples(mosaic.astype(np.float32), layout)
    elif form.order:
        pixels = np.full((height, width, form.pixel_bytes), 255, np.uint8)
        for place, color in enumerate(form.order.removesuffix("a")):
            pixels[..., place] = photo[..., _RGB.index(color)]
        lines = pixels.reshape(height, -1)
    else:
        lines = _samples(photo.astype(np.float32) @ np.array(layout.weights, "f4"), layout)
    if not layout.is_padded:
        return np.ascontiguousarray(lines).reshape(layout.shape)
    return _with_padding(lines, layout)


def frame_from_samples(numbers: npt.NDArray[np.uint16], layout: PixelLayout) -> Image:
    """Return uint16[H, W] as a frame of samples of two bytes, uint8 of the layout's shape."""
    lines = np.ascontiguousarray(numbers, "<u2").view(np.uint8)
    return _with_padding(lines, layout) if layout.is_padded else lines


def photo_from_frame(frame: Image, layout: PixelLayout) -> Image:
    """Return a frame, uint8 of the layout's shape, as uint8[H, W, 3] RGB."""
    form = layout.format
    height, width = layout.size
    lines = frame.reshape(layout.rows, layout.row_bytes)
    if form.is_yuv:
        return _rounded(_rgb_of_yuv(lines, layout))
    lines = lines[:, : width * form.pixel_bytes]
    if form.order and not form.is_mosaic:
        pixels = lines.reshape(height, width, form.pixel_bytes)
        return np.ascontiguousarray(pixels[..., [form.order.index(color) for color in _RGB]])
    if form.sample_bytes == 2:
        samples = np.ascontiguousarray(lines).view("<u2").astype(np.float32)
        values = samples * np.float32(255 / layout.white)
    else:
        values = lines.astype(np.float32)
    if form.is_mosaic:
        return _rounded(demosaic(values, form.order))
    return np.repeat(_rounded(values)[..., np.newaxis], 3, axis=2)


def demosaic(mosaic: Floats, order: str) -> Floats:
    """Return float32[H, W, 3]: each missing colour the mean of its neighbours that have it."""
    height, width = mosaic.shape
    # Reflected without the edge itself, so that the colours stay in step.
    padded = np.pad(mosaic, 1, mode="reflect")
    found = np.zeros((height, width, 3), np.float32)
    for y, x in np.ndindex(2, 2):
        for channel, color in enumerate(_RGB):
            around = [
                padded[1 + y + dy : 1 + y + dy + height - 1 : 2,
                       1 + x + dx : 1 + x + dx + width - 1 : 2]
                for dy, dx in neighbours(order, y, x, color)
            ]  # fmt: skip
            found[y::2, x::2, channel] = sum(around) / len(around)
    return found


def neighbours(order: str, y: int, x: int, color: str) -> list[tuple[int, int]]:
    """Return where, from a pixel of the mosaic at (y, x), the nearest ones of a colour are."""
    if order[y * 2 + x] == color:
        return [(0, 0)]
    return [
        (dy, dx)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if order[(y + dy) % 2 * 2 + (x + dx) % 2] == color
    ]


def _yuv_lines(photo: Image, layout: PixelLayout) -> Image:
    form = layout.format
    height, width = layout.size
    red, _, blue = layout.weights
    begin, luma, chroma = layout.yuv_scales
    rgb = photo.astype(np.float32)
    y = rgb @ np.array(layout.weights, "f4")
    u = (rgb[..., 2] - y) / (2 * (1 - blue)) / chroma + 128
    v = (rgb[..., 0] - y) / (2 * (1 - red)) / chroma + 128
    y = y / luma + begin
    rows = form.chroma_rows or 1
    u, v = (_rounded(c.reshape(height // rows, rows, width // 2, 2).mean((1, 3))) for c in (u, v))
    if not form.chroma_rows:
        pairs = _rounded(y).reshape(height, width // 2, 2)
        lumas = iter((pairs[..., 0], pairs[..., 1]))
        of = {"u": u, "v": v}
        quads = [next(lumas) if name == "y" else of[name] for name in form.order]
        return np.stack(quads, -1).reshape(height, width * 2)
    if form.is_planar:
        both = np.concatenate([u.reshape(-1), v.reshape(-1)])
    else:
        both = np.stack([u, v] if form.order == "uv" else [v, u], -1).reshape(-1)
    return np.concatenate([_rounded(y), both.reshape(height // 2, width)])


def _rgb_of_yuv(lines: Image, layout: PixelLayout) -> Floats:
    red, green, blue = layout.weights
    begin, luma, chroma = layout.yuv_scales
    y, u, v = (plane.astype(np.float32) for plane in _planes(lines, layout))
    rows = layout.format.chroma_rows or 1
    u, v = (((c - 128) * chroma).repeat(rows, 0).repeat(2, 1) for c in (u, v))
    y = (y - begin) * luma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / green, b], -1)


def _planes(lines: Image, layout: PixelLayout) -> tuple[Image, Image, Image]:
    """Return luma, u and v, the last two as small as they are."""
    form = layout.format
    height, width = layout.size
    if not form.chroma_rows:
        quads = lines[:, : width * 2].reshape(height, width // 2, 4)
        y = quads[..., [i for i, name in enumerate(form.order) if name == "y"]]
        u, v = (quads[..., form.order.index(name)] for name in "uv")
        return y.reshape(height, width), u, v
    rest = lines[height:]
    if form.is_planar:
        both = rest.reshape(2, height // 2, layout.row_bytes // 2)[..., : width // 2]
        return lines[:height, :width], both[0], both[1]
    pairs = rest[:, :width].reshape(height // 2, width // 2, 2)
    u, v = (pairs[..., form.order.index(name)] for name in "uv")
    return lines[:height, :width], u, v


def _with_padding(lines: Image, layout: PixelLayout) -> Image:
    height, width = layout.size
    found = np.zeros((layout.rows, layout.row_bytes), np.uint8)
    if not layout.format.is_planar:
        found[:, : lines.shape[1]] = lines
        return found
    found[:height, :width] = lines[:height]
    planes = found[height:].reshape(2, height // 2, layout.row_bytes // 2)
    planes[..., : width // 2] = lines[height:].reshape(2, height // 2, width // 2)
    return found


def _samples(values: Floats, layout: PixelLayout) -> Image:
    """Return rows of bytes: `values`, 0 to 255, as the layout's samples."""
    if layout.format.sample_bytes == 1:
        return _rounded(values)
    wide: npt.NDArray[Any] = np.rint(values * np.float32(layout.white / 255)).astype("<u2")
    return wide.view(np.uint8)


def _rounded(values: Floats) -> Image:
    return np.rint(values).clip(0, 255).astype(np.uint8)
