"""Classical segmentation of made-up frames, where every region and class is known."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from edgevision.metrics.baselines import ColourVotes, Method, find_regions
from edgevision.metrics.segmentation import ConfusionMatrix

METHODS = get_args(Method)
VOID = 9
COLOURS = np.array([(80, 100, 150), (100, 100, 100), (75, 125, 75)], np.uint8)
Array = npt.NDArray[np.uint8]


def picture(seed: int, noise: int) -> tuple[Array, Array]:
    """Sky above a road with a bush on it; each pixel's colour is off by up to `noise`."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((96, 128), np.uint8)
    labels[40 + seed % 8 :] = 1
    rows, columns = np.mgrid[:96, :128]
    labels[np.hypot(rows - 62, columns - 40 - 4 * seed) < 18] = 2
    off = rng.integers(-noise, noise + 1, (96, 128, 3))
    return (COLOURS[labels] + off).clip(0, 255).astype(np.uint8), labels


def trained(noise: int) -> ColourVotes:
    votes = ColourVotes(3)
    for seed in range(1, 5):
        votes.add(*picture(seed, noise))
    return votes


@pytest.mark.parametrize("method", METHODS)
def test_clear_regions_get_their_own_class(method: Method) -> None:
    frame, labels = picture(0, 4)
    found = trained(4).classify(frame, method)
    assert found.dtype == np.uint8
    # A block of split-and-merge is eight pixels: the bush is as round as that allows.
    assert (found == labels).mean() > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_a_region_outvotes_its_noisy_pixels(method: Method) -> None:
    votes = trained(30)
    scores = {}
    for how in (None, method):
        matrix = ConfusionMatrix(3)
        frame, labels = picture(0, 30)
        matrix.add(labels, votes.classify(frame, how))
        scores[how] = matrix.miou()
    assert scores[method] > scores[None]


@pytest.mark.parametrize("method", METHODS)
def test_regions_are_numbered_and_in_one_piece(method: Method) -> None:
    regions = find_regions(picture(3, 12)[0], method)
    assert regions.shape == (96, 128)
    numbers = np.unique(regions)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert len(numbers) >= 3
    if method != "growing":  # which gives what is left over to the nearest region
        for number in numbers:
            assert ndimage.label(regions == number, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (7, 130), (64, 64)])
def test_a_frame_of_one_colour_is_one_region(method: Method, size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 77, np.uint8)
    np.testing.assert_array_equal(find_regions(frame, method), np.zeros(size))


def test_a_colour_means_what_it_mostly_was_where_it_was() -> None:
    votes = ColourVotes(3)
    frame = np.full((16, 4, 3), 200, np.uint8)
    labels = np.full((16, 4), 2, np.uint8)
    labels[8:, :3] = 1
    labels[:8, 0] = VOID
    votes.add(frame, labels)
    np.testing.assert_array_equal(votes.classify(frame), np.repeat([[2], [1]], 8, 0).repeat(4, 1))
    # A colour never seen takes the commonest class: 32 pixels of 2 and 24 of 1.
    assert (votes.classify(np.zeros_like(frame)) == 2).all()


def test_misuse_is_refused() -> None:
    votes, frame = ColourVotes(3), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="class_count: got 257"):
        ColourVotes(257)
    with pytest.raises(ValueError, match=r"labels are \(4, 5\), the frame is \(4, 4\)"):
        votes.add(frame, np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"frame: got float64\[4, 4, 3\]"):
        votes.classify(frame.astype(float))
    with pytest.raises(ValueError, match=r"method: got 'magic', expected one of \['edges'"):
        votes.classify(frame, "magic")  # type: ignore[arg-type]
