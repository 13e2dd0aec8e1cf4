"""Pixel formats in the graph, held against libswscale, and mosaics against plain numpy."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Interpolation
from hypothesis import given
from hypothesis import strategies as st

from edgevision.export.adapters.fit import Placement
from edgevision.export.adapters.pixels import PixelReader
from edgevision.tasks.frames import read_image
from edgevision.tasks.pixel_formats import PixelLayout, pixel_format, pixel_format_names
from edgevision.tasks.pixel_photos import frame_from_photo, photo_from_frame
from tests.parts.nets import PHOTOS

SIZE = (120, 160)
SWSCALE = {
    "nv12": "nv12", "nv21": "nv21", "i420": "yuv420p", "yuyv": "yuyv422", "uyvy": "uyvy422",
    "gray8": "gray",
}  # fmt: skip
# Chroma is repeated, as drivers do it, and every step in full precision.
EXACT = (
    Interpolation.POINT.value | Interpolation.FULL_CHR_H_INT.value
    | Interpolation.FULL_CHR_H_INP.value | Interpolation.ACCURATE_RND.value
    | Interpolation.BITEXACT.value
)  # fmt: skip
_COLORSPACES, _RANGES = {"bt709": 1, "bt601": 5}, {"limited": 1, "full": 2}


def read(layout: PixelLayout, frame: np.ndarray) -> np.ndarray:
    """Return float32[H, W, 3] as the graph has it."""
    found = PixelReader(layout).whole(torch.from_numpy(frame)[None])[0]
    return found.expand(3, -1, -1).permute(1, 2, 0).numpy()


def by_swscale(layout: PixelLayout, frame: np.ndarray) -> np.ndarray:
    height, width = layout.size
    picture = av.VideoFrame(width, height, SWSCALE[layout.format.name])
    lines = frame.reshape(layout.rows, layout.row_bytes)
    if layout.format.is_planar:
        chroma = lines[height:].reshape(2, height // 2, width // 2)
        parts = [lines[:height], *chroma]
    else:
        parts = [lines[:height], lines[height:]]
    for plane, part in zip(picture.planes, parts, strict=False):
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        rows[: part.shape[0], : part.shape[1]] = part
        plane.update(rows.tobytes())
    space = _COLORSPACES[layout.matrix]
    converted = picture.reformat(
        format="rgb24", src_colorspace=space, dst_colorspace=space,
        src_color_range=_RANGES[layout.range], dst_color_range=_RANGES["full"],
        interpolation=EXACT,
    ) if layout.format.is_yuv else picture.reformat(format="rgb24")  # fmt: skip
    return converted.to_ndarray()


def plain_demosaic(mosaic: np.ndarray, order: str) -> np.ndarray:
    """Bilinear, written as masks and weights over the whole frame."""
    height, width = mosaic.shape
    found = np.zeros((height, width, 3))
    rows, columns = np.indices(mosaic.shape)
    place = rows % 2 * 2 + columns % 2
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    for channel, color in enumerate("rgb"):
        mask = np.isin(place, [i for i, c in enumerate(order) if c == color])
        padded = np.pad(mosaic * mask, 1, mode="reflect")
        weights = cross if color == "g" else kernel
        for y, x in np.ndindex(3, 3):
            found[..., channel] += weights[y, x] * padded[y : y + height, x : x + width]
    return found


def full_photos() -> list[np.ndarray]:
    """Return the twelve photos as they are, but for an odd last row or column."""
    found = [read_image(path) for path in sorted(PHOTOS.glob("*.jpg"))[:12]]
    assert len(found) == 12
    return [photo[: len(photo) // 2 * 2, : photo.shape[1] // 2 * 2] for photo in found]


@pytest.mark.parametrize("name", SWSCALE)
def test_colours_are_those_of_libswscale_on_twelve_photos(name: str) -> None:
    # Each photo under one of the four readings; which, goes round by format.
    readings = itertools.cycle(itertools.product(_COLORSPACES, _RANGES))
    readings = itertools.islice(readings, list(SWSCALE).index(name), None)
    for photo, (matrix, range_) in zip(full_photos(), readings, strict=False):
        layout = PixelLayout.check(name, photo.shape[:2], matrix=matrix, range=range_)
        frame = frame_from_photo(photo, layout)
        apart = np.abs(np.rint(read(layout, frame)) - by_swscale(layout, frame))
        assert apart.max() <= 1, (matrix, range_)


@pytest.mark.parametrize("name", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_orders_of_colours_are_the_photo_s_own_to_the_bit(name: str) -> None:
    for photo in full_photos():
        layout = PixelLayout.check(name, photo.shape[:2])
        np.testing.assert_array_equal(read(layout, frame_from_photo(photo, layout)), photo)


@given(
    name=st.sampled_from(pixel_format_names()),
    halves=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    padding=st.integers(0, 8),
    matrix=st.sampled_from(sorted(_COLORSPACES)),
    range_=st.sampled_from(sorted(_RANGES)),
    bits=st.sampled_from([10, 12, 14, 16]),
    seed=st.integers(0, 999),
)
def test_graph_and_numpy_agree_on_any_bytes(
    name: str, halves: tuple[int, int], padding: int, matrix: str, range_: str, bits: int, seed: int
) -> None:
    form, size = pixel_format(name), (halves[0] * 2, halves[1] * 2)
    is_wide = form.sample_bytes == 2
    layout = PixelLayout.check(
        name, size, row_bytes=size[1] * form.pixel_bytes + padding * 2, matrix=matrix,
        range=range_, bits=bits if is_wide else None,
    )  # fmt: skip
    frame = np.random.default_rng(seed).integers(0, 256, layout.shape, np.uint8)
    if is_wide:
        frame.view("<u2")[...] &= layout.white
    assert np.abs(read(layout, frame) - photo_from_frame(frame, layout)).max() <= 0.502


@pytest.mark.parametrize("order", ["rggb", "bggr", "grbg", "gbrg"])
@pytest.mark.parametrize("bits", [8, 12])
def test_mosaics_are_those_of_plain_numpy(order: str, bits: int) -> None:
    layout = PixelLayout.check(f"{order}{8 if bits == 8 else 16}", SIZE, bits=bits)
    samples = np.random.default_rng(0).integers(0, layout.white + 1, SIZE, np.uint16)
    frame = samples.astype(np.uint8) if bits == 8 else samples.view(np.uint8)
    wanted = plain_demosaic(samples * (255 / layout.white), order)
    np.testing.assert_allclose(read(layout, frame), wanted, atol=1e-3)


def test_values_above_the_significant_bits_are_white() -> None:
    layout = PixelLayout.check("gray16", (2, 2), bits=12)
    frame = np.array([[0, 4095], [4096, 65535]], np.uint16).view(np.uint8)
    np.testing.assert_allclose(read(layout, frame)[..., 0], [[0, 255], [255, 255]], atol=1e-4)


@pytest.mark.parametrize("name", pixel_format_names())
def test_a_region_is_read_as_the_frame_would_be(name: str) -> None:
    layout = PixelLayout.check(name, (12, 16))
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, layout.shape, np.uint8))
    reader, region = PixelReader(layout), (2, 4, 8, 10)
    whole = reader.whole(frame[None])
    planes = reader.planes(frame[None], region)
    size = region[2:]
    found = reader.rgb([torch.nn.functional.interpolate(p, size=size) for p in planes])
    inner = (..., slice(1, -1), slice(1, -1)) if layout.format.is_mosaic else ...
    wanted = whole[..., 2:10, 4:14]
    torch.testing.assert_close(found[inner], wanted[inner])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fill"}, "fit: got 'fill', expected stretch, letterbox, crop"),
        ({"name": "crop", "region": (0, 0, 13, 4)}, "ends at row 13"),
        ({"name": "crop", "region": (1, 0, 4, 4)}, "nv12 shares colour among 2x2 pixels"),
        ({"name": "crop", "region": (0, 0, 4)}, "expected top, left, height, width"),
        ({"name": "letterbox", "pad_value": 256}, "pad_value: got 256"),
    ],
)
def test_fits_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Placement.check(
            **{"frame": (12, 16), "net": (8, 8), "form": pixel_format("nv12"), **options}
        )  # type: ignore[arg-type]


@given(
    name=st.sampled_from(["letterbox", "crop", "stretch"]),
    frame=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    net=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_what_is_found_in_the_net_comes_back_on_the_frame(
    name: str, frame: tuple[int, int], net: tuple[int, int]
) -> None:
    even = (frame[0] * 2, frame[1] * 2)
    placement = Placement.check(name, even, net, pixel_format("nv12"))
    top, left, height, width = placement.region
    # The corners of what shows the frame are the corners of what was looked at.
    corners = torch.tensor([placement.bounds()], dtype=torch.float32)
    wanted = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
    torch.testing.assert_close(placement.boxes(corners), wanted, atol=1e-3, rtol=1e-5)
    fitted = placement.with_bars(placement.resize(torch.ones(1, 1, height, width)))
    assert tuple(fitted.shape[-2:]) == net
    back = placement.on_frame(placement.back(fitted), 0)
    assert tuple(back.shape[-2:]) == even
    inside = back[..., top : top + height, left : left + width]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    outside = back.numel() - inside.numel()
    assert int((back == 0).sum()) == outside
