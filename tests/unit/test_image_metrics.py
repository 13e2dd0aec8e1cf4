"""Image scores, against closed forms, scikit-image and SciPy."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import scipy.linalg
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgevision.metrics.images import frechet_distance, precision_recall, psnr, ssim


def pictures(seed: int, *, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 16, 20, channels), np.uint8)


def noisy(images: np.ndarray, level: int, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-level, level + 1, images.shape)
    return (images.astype(int) + noise).clip(0, 255).astype(np.uint8)


def normal(seed: int, count: int = 400, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size))


def test_psnr_of_a_known_difference() -> None:
    black = np.zeros((3, 4, 4, 1), np.uint8)
    other = black.copy()
    other[0] = 255
    other[1] = 1
    np.testing.assert_allclose(psnr(black, other), [0, 20 * math.log10(255), math.inf])


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_scikit_images(channels: int) -> None:
    images = pictures(0, channels=channels)
    candidate = noisy(images, 20)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(one, other, data_range=255)
        for one, other in zip(images, candidate, strict=True)
    ]
    np.testing.assert_allclose(psnr(images, candidate), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_one_for_equals_and_falls_with_noise(channels: int) -> None:
    images = pictures(1, channels=channels)
    equal, little, much = (ssim(images, noisy(images, level)) for level in (0, 10, 60))
    np.testing.assert_allclose(equal, 1)
    assert (equal > little).all()
    assert (little > much).all()


def test_ssim_of_flat_images_is_its_luminance_term() -> None:
    one, other = (np.full((1, 12, 12, 1), value, np.uint8) for value in (100, 150))
    stabiliser = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + stabiliser) / (100**2 + 150**2 + stabiliser)
    np.testing.assert_allclose(ssim(one, other), expected)


def test_frechet_distance_of_gaussians_known_in_closed_form() -> None:
    # Diagonal covariances commute: the distance is that of means and of standard deviations.
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * math.sqrt(3 / 4)
    real = corners * [2, 3] + [10, 20]
    generated = corners * [1, 5] + [13, 16]
    assert frechet_distance(real, generated) == pytest.approx(3**2 + 4**2 + 1**2 + 2**2)


def test_frechet_distance_is_the_one_of_the_matrix_square_root() -> None:
    mix = np.random.default_rng(5).standard_normal((6, 6))
    real, generated = normal(0) @ mix, normal(1) @ mix.T + 0.5
    one, other = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = scipy.linalg.sqrtm(one @ other).real
    shift = real.mean(0) - generated.mean(0)
    expected = shift @ shift + np.trace(one + other - 2 * root)
    assert frechet_distance(real, generated) == pytest.approx(expected)
    assert frechet_distance(generated, real) == pytest.approx(expected)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(1, 5)),
               elements=st.floats(-100, 100, width=32))
)  # fmt: skip
def test_a_set_is_at_no_distance_from_itself_and_at_its_shift_from_a_shifted_one(
    features: np.ndarray,
) -> None:
    scale = 1 + float(np.square(features.astype(np.float64)).sum())
    assert frechet_distance(features, features) <= 1e-6 * scale
    moved = features.astype(np.float64) + 2
    assert frechet_distance(features, moved) == pytest.approx(
        4 * features.shape[1], abs=1e-6 * scale
    )


def test_sets_on_top_of_each_other_are_precise_and_complete() -> None:
    found = precision_recall(normal(0), normal(0))
    assert (found.precision, found.recall) == (1, 1)


def test_sets_far_apart_share_nothing() -> None:
    found = precision_recall(normal(0), normal(1) + 100)
    assert (found.precision, found.recall) == (0, 0)


def test_a_generator_with_half_the_modes_is_precise_and_not_complete() -> None:
    two_modes = normal(0, size=2)
    two_modes[::2] += 100
    one_mode = normal(1, size=2)
    found = precision_recall(two_modes, one_mode)
    assert found.precision > 0.95
    assert 0.4 < found.recall < 0.55
    turned = precision_recall(one_mode, two_modes)
    assert (turned.precision, turned.recall) == (found.recall, found.precision)


def test_neighbourhoods_on_a_line() -> None:
    # The second neighbours lie 2, 1, 2 and 9 away, so the balls cover -2 to 19.
    real = np.array([[0.0], [1], [2], [10]])
    generated = np.array([[-2.5], [-1.5], [5], [18.5], [19.5]])
    assert precision_recall(real, generated, neighbours=2).precision == 3 / 5


def test_more_features_than_one_chunk() -> None:
    many = normal(0, count=2500, size=2)
    found = precision_recall(many, many[:2100] + 1000)
    assert (found.precision, found.recall) == (0, 0)
    assert precision_recall(many, many[:2100]).precision == 1


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (normal(0), normal(0, size=5), "features differ in length: real 6, generated 5"),
        (normal(0), normal(0)[0], "generated: features are [6]"),
        (normal(0, count=1), normal(0), "real: features are [1, 6]"),
        (normal(0), normal(0) * np.nan, "generated: features hold NaN"),
    ],
)
def test_features_that_cannot_be_compared(
    real: np.ndarray, generated: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        precision_recall(real, generated)
    with pytest.raises(ValueError, match=re.escape(message)):
        frechet_distance(real, generated)


def test_images_that_cannot_be_compared() -> None:
    images = pictures(0)
    with pytest.raises(ValueError, match="differ in shape"):
        psnr(images, images[:, :-1])
    with pytest.raises(ValueError, match="candidate: got float64"):
        ssim(images, images / 255)
    with pytest.raises(ValueError, match="sides of at least 11"):
        ssim(images[:, :10], images[:, :10])
    with pytest.raises(ValueError, match="neighbours: got 0"):
        precision_recall(normal(0), normal(1), neighbours=0)
