"""Pixel formats on the run side: layouts, what is taken as a frame, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.pixel_formats import PixelLayout, pixel_format, pixel_format_names
from edgevision.tasks.pixel_photos import frame_from_photo, photo_from_frame

SIZE = (6, 8)
NV12 = PixelLayout.check("nv12", SIZE)
GRAY12 = PixelLayout.check("gray16", SIZE, bits=12)


def described(layout: PixelLayout, **changed: object) -> dict[str, Any]:
    return {"input_size": list(layout.size), "camera": {**layout.to_json(), **changed}}


def spec(layout: PixelLayout) -> TensorSpec:
    return TensorSpec("frame", DType.UINT8, (1, *layout.shape))


@given(
    name=st.sampled_from(pixel_format_names()),
    halves=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    padding=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_a_frame_is_what_its_layout_says(
    name: str, halves: tuple[int, int], padding: int, seed: int
) -> None:
    form, size = pixel_format(name), (halves[0] * 2, halves[1] * 2)
    layout = PixelLayout.check(name, size, row_bytes=size[1] * form.pixel_bytes + padding * 2)
    flat = np.full((*size, 3), seed, np.uint8)
    frame = frame_from_photo(flat, layout)
    assert frame.shape == layout.shape
    assert frame.size == layout.size_bytes
    assert np.abs(photo_from_frame(frame, layout).astype(int) - seed).max() <= 1
    camera = CameraFrame.from_manifest(spec(layout), described(layout), "semantic")
    assert camera.layout == layout
    for way in (frame, frame[np.newaxis], frame.reshape(-1)):
        fed: Any = camera.feeds(way)["frame"]
        assert fed.shape == (1, *layout.shape)
        assert np.shares_memory(fed, frame)


@pytest.mark.parametrize("name", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_reordering_is_exact(name: str) -> None:
    layout = PixelLayout.check(name, SIZE)
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(photo_from_frame(frame_from_photo(photo, layout), layout), photo)


def test_samples_of_sixteen_bits_are_taken_as_numbers_without_a_copy() -> None:
    camera = CameraFrame("frame", GRAY12)
    numbers = np.full(SIZE, 4095, np.uint16)
    fed: Any = camera.feeds(numbers)["frame"]
    assert fed.shape == (1, 6, 16)
    assert np.shares_memory(fed, numbers)
    assert photo_from_frame(fed[0], GRAY12).min() == 255
    numbers[3, 5] = 4096
    for frame in (numbers, numbers.view(np.uint8), numbers[np.newaxis]):
        with pytest.raises(FrameError, match="12 significant bits end at 4095"):
            camera.feeds(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros(71, np.uint8), r"flat buffer of 72 bytes, 6 rows of luma and 3 of chroma of 8"),
        (np.zeros((6, 8, 3), np.uint8), r"got uint8\[6, 8, 3\], expected .*uint8\[9, 8\]"),
        (np.zeros((9, 8), np.float32), r"got float32\[9, 8\]"),
        (np.zeros((6, 8), np.uint16), r"got uint16\[6, 8\]"),
    ],
)
def test_a_buffer_of_another_length_is_told_how_the_bytes_come_about(
    frame: np.ndarray, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        CameraFrame("frame", NV12).feeds(frame)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("nv12", (5, 8), {}, r"2x2 pixels, and 5x8 is not a multiple of that. Take 4x8"),
        ("yuyv", (5, 7), {}, r"1x2 pixels, and 5x7 .* Take 5x6"),
        ("rggb8", (4, 3), {}, r"Take 4x2"),
        ("rgb8", SIZE, {"row_bytes": 23}, "a row of 8 pixels of rgb8 has 24 bytes"),
        ("i420", SIZE, {"row_bytes": 9}, "an even number"),
        ("gray16", SIZE, {"row_bytes": 17}, "an even number"),
        ("gray16", SIZE, {"bits": 11}, "a sample of gray16 has 10 or 12 or 14 or 16"),
        ("nv12", SIZE, {"bits": 10}, "a sample of nv12 has 8"),
        ("nv12", SIZE, {"matrix": "bt2020"}, "matrix: got 'bt2020', expected bt601 or bt709"),
        ("nv12", SIZE, {"range": "tv"}, "range: got 'tv', expected limited or full"),
        ("NV12", SIZE, {}, "Did you mean nv12"),
    ],
)
def test_layouts_that_cannot_be(
    name: str, size: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PixelLayout.check(name, size, **options)


@pytest.mark.parametrize(
    "changed",
    [
        {"pixel_format": "nv99"},
        {"pixel_format": 7},
        {"row_bytes": 10},
        {"row_bytes": True},
        {"matrix": "x"},
        {"bits": 99},
        {"region": [0, 0, 7, 8]},
        {"region": [0, -2, 2, 2]},
        {"region": [0, 0]},
        {"region": "all"},
    ],
)
def test_a_manifest_that_lies_of_its_camera_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BundleFormatError, match="task semantic"):
        CameraFrame.from_manifest(spec(NV12), described(NV12, **changed), "semantic")
    settings = {**described(NV12), "input_size": [6]}
    with pytest.raises(BundleFormatError, match="task semantic"):
        CameraFrame.from_manifest(spec(NV12), settings, "semantic")
