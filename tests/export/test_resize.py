"""Resizing by matrices: Pillow's pictures, and torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevision.export.adapters.resize import ResizeCrop


@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
)
def test_the_middle_of_torchs_antialiased_picture(
    input_size: tuple[int, int], size: tuple[int, int]
) -> None:
    picture = torch.rand(1, 3, *input_size, generator=torch.Generator().manual_seed(0)) * 255
    scale = max(size[0] / input_size[0], size[1] / input_size[1])
    resized = (round(input_size[0] * scale), round(input_size[1] * scale))
    whole = torch.nn.functional.interpolate(
        picture, size=resized, mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (round((have - kept) / 2) for have, kept in zip(resized, size, strict=True))
    wanted = whole[..., top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(ResizeCrop(input_size, size)(picture), wanted, atol=2e-3, rtol=1e-4)


def test_a_classifiers_usual_way_is_pillows() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (120, 160, 3), np.uint8)
    resized = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BILINEAR)
    wanted = np.asarray(resized)[8:40, 16:48]
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    found = ResizeCrop((120, 160), (32, 32), 48)(x)[0].permute(1, 2, 0).numpy()
    # Pillow rounds after each of its two passes.
    assert np.abs(found - wanted).max() <= 1.01


def test_less_than_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="which makes 24x32 of 120x160, less than size 32x32"):
        ResizeCrop((120, 160), (32, 32), 24)
