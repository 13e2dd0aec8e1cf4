"""Pictures and numbers from a class map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import FrameError
from edgevision.tasks.camera import ClassLabel
from edgevision.tasks.semantic import SemanticResult
from edgevision.tasks.timings import Timings

LABELS = (ClassLabel("road", "#804080"), ClassLabel("sky", "#4682b4"))
MASK = np.array([[0, 1, 1], [0, 0, 0]], np.uint8)
RESULT = SemanticResult(MASK, LABELS, Timings(0.1, 2.0, 0.3))


def test_colored_uses_each_class_s_colour() -> None:
    picture = RESULT.colored()
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0x80, 0x40, 0x80]
    assert picture[0, 1].tolist() == [0x46, 0x82, 0xB4]


@given(st.floats(0, 1), st.integers(0, 255))
def test_overlay_lies_between_frame_and_colour(opacity: float, grey: int) -> None:
    frame = np.full((2, 3, 3), grey, np.uint8)
    wanted = frame * (1 - opacity) + RESULT.colored() * opacity
    assert np.abs(RESULT.overlay(frame, opacity=opacity) - wanted).max() <= 2


def test_overlay_ends() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    np.testing.assert_array_equal(RESULT.overlay(frame, opacity=0), frame)
    np.testing.assert_array_equal(RESULT.overlay(frame, opacity=1), RESULT.colored())


def test_overlay_refuses_another_frame() -> None:
    with pytest.raises(
        FrameError, match=r"expected the frame that was segmented, uint8\[2, 3, 3\]"
    ):
        RESULT.overlay(np.zeros((4, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="opacity"):
        RESULT.overlay(np.zeros((2, 3, 3), np.uint8), opacity=2)


def test_shares_are_sorted_and_sum_to_one() -> None:
    assert RESULT.shares() == {"road": pytest.approx(2 / 3), "sky": pytest.approx(1 / 3)}
    assert list(RESULT.shares()) == ["road", "sky"]
