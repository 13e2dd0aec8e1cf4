"""From the bytes of a camera's frame to red, green and blue, with operators that TensorRT takes.

The bytes are cast before anything else, as TensorRT takes uint8 at a Cast only. Colour comes last:
a plane that is not yet three is resized with a third of the work, and chroma with a sixth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from edgevision.export.adapters.fit import Region
from edgevision.tasks.pixel_formats import PixelFormat, PixelLayout
from edgevision.tasks.pixel_photos import neighbours

_RGB = "rgb"


class PixelReader(nn.Module):
    """Frames of one layout as planes, float32 of 0 to 255, and planes as RGB."""

    from_u: Tensor
    from_v: Tensor
    order: Tensor

    def __init__(self, layout: PixelLayout) -> None:
        super().__init__()
        self.layout = layout
        red, green, blue = layout.weights
        _, _, chroma = layout.yuv_scales
        u = [0.0, -2 * blue * (1 - blue) / green, 2 * (1 - blue)]
        v = [2 * (1 - red), -2 * red * (1 - red) / green, 0.0]
        form = layout.format
        if form.is_yuv:
            self.register_buffer("from_u", (torch.tensor(u) * chroma).view(1, 3, 1, 1))
            self.register_buffer("from_v", (torch.tensor(v) * chroma).view(1, 3, 1, 1))
        elif form.pixel_bytes > 2:
            places = [form.order.index(c) for c in _RGB]
            self.is_reordered = places != list(range(form.pixel_bytes))
            self.register_buffer("order", torch.tensor(places))

    def planes(self, frame: Tensor, region: Region) -> list[Tensor]:
        """Return what the region holds, float32[N, C, h, w] each; chroma as small as it is."""
        form, (height, width) = self.layout.format, self.layout.size
        x = frame.float()
        if form.is_yuv:
            return self._yuv(x, region)
        if form.pixel_bytes > 2:
            if self.layout.is_padded:
                x = x[:, :, : width * form.pixel_bytes]
                x = x.reshape(-1, height, width, form.pixel_bytes)
            x = x.permute(0, 3, 1, 2)
            if self.is_reordered:
                x = x.index_select(1, self.order)
            return [_part(x, region)]
        x = self._samples(x)[:, None]
        if not form.is_mosaic:
            return [_part(x, region)]
        return [_demosaic(_part(x, region), form, region[2:])]

    def rgb(self, planes: list[Tensor]) -> Tensor:
        """Return the planes, all of one size, as RGB 0 to 255: three channels, or one of gray."""
        if not self.layout.format.is_yuv:
            return planes[0]
        y, u, v = planes
        begin, luma, _ = self.layout.yuv_scales
        # Moved to zero first: in float16 numbers are the finer the smaller they are.
        if begin:
            y = (y - begin) * luma
        color = y + (u - 128) * self.from_u + (v - 128) * self.from_v
        return color.clamp(0, 255)

    def whole(self, frame: Tensor) -> Tensor:
        """Return RGB of the frame's own size."""
        size = self.layout.size
        planes = self.planes(frame, (0, 0, *size))
        return self.rgb([planes[0], *(interpolate(c, size=size) for c in planes[1:])])

    def _samples(self, x: Tensor) -> Tensor:
        """Return float32[N, H, W], 0 to 255, of rows of one or two bytes a pixel."""
        width, form = self.layout.size[1], self.layout.format
        x = x[:, :, : width * form.sample_bytes] if self.layout.is_padded else x
        if form.sample_bytes == 1:
            return x
        scale = 255 / self.layout.white
        pairs = x.reshape(-1, *self.layout.size, 2)
        # What is above the significant bits is white: the caller has refused it where it could.
        return (pairs[..., 0] * scale + pairs[..., 1] * (256 * scale)).clamp(max=255)

    def _yuv(self, x: Tensor, region: Region) -> list[Tensor]:
        form, (height, width) = self.layout.format, self.layout.size
        top, left, rows, columns = region
        half = (top // (form.chroma_rows or 1), left // 2, rows // (form.chroma_rows or 1),
                columns // 2)  # fmt: skip
        if not form.chroma_rows:
            x = x[:, :, : width * 2] if self.layout.is_padded else x
            quads = x.reshape(-1, height, width // 2, 4).permute(0, 3, 1, 2)
            first = form.order.index("y")
            y = quads[:, first::2].permute(0, 2, 3, 1).reshape(-1, 1, height, width)
            u, v = (quads[:, form.order.index(c)][:, None] for c in "uv")
            return [_part(y, region), _part(u, half), _part(v, half)]
        y, rest = x[:, None, :height, :width], x[:, height:]
        if form.is_planar:
            both = rest.reshape(-1, 2, height // 2, self.layout.row_bytes // 2)
        else:
            both = rest[:, :, :width].reshape(-1, height // 2, width // 2, 2).permute(0, 3, 1, 2)
        first = form.order.index("u")
        u, v = both[:, first : first + 1], both[:, 1 - first : 2 - first]
        size = (height // 2, width // 2)
        return [_part(y, region), *(_part(c[..., : size[1]], half) for c in (u, v))]


def _part(x: Tensor, region: Region) -> Tensor:
    top, left, height, width = region
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return x[..., top : top + height, left : left + width]


def _demosaic(x: Tensor, form: PixelFormat, size: tuple[int, int]) -> Tensor:
    """Return float32[N, 3, H, W] of a mosaic, float32[N, 1, H, W]: neighbours' means.

    Each of the four places in a 2x2 cell is a plane of half the size, and so is each colour there:
    shifted planes are added, and nothing of the frame's size but the answer is made.
    """
    height, width = size[0] // 2, size[1] // 2
    cells = x.reshape(-1, height, 2, width, 2).permute(0, 2, 4, 1, 3).reshape(-1, 4, height, width)
    # An edge repeated in a plane is the frame reflected, so that the colours stay in step.
    cells = pad(cells, (1, 1, 1, 1), mode="replicate")

    def plane(y: int, x: int) -> Tensor:
        place, down, right = y % 2 * 2 + x % 2, 1 + y // 2, 1 + x // 2
        return cells[:, place, down : down + height, right : right + width]

    found = []
    for color in _RGB:
        for y in (0, 1):
            for x_ in (0, 1):
                around = [plane(y + dy, x_ + dx) for dy, dx in neighbours(form.order, y, x_, color)]
                total = around[0]
                for one in around[1:]:
                    total = total + one
                found.append(total * (1 / len(around)) if len(around) > 1 else total)
    stacked = torch.stack(found, 1).reshape(-1, 3, 2, 2, height, width)
    return stacked.permute(0, 1, 4, 2, 5, 3).reshape(-1, 3, *size)
