"""Scores of generated images: pair by pair (PSNR, SSIM), and set against set over features.

The distances between sets take whatever features the caller computes. Over the features of a small
classifier they are not the FID that papers report, which hangs on the Inception net and its
weights: compare such figures only with figures over the same features and as many images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision._optional import require

Images = npt.NDArray[np.uint8]
Features = npt.NDArray[np.floating]

_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """How much of what is generated is real-like, and how much of the real is generated, 0 to 1."""

    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Count, mean and scatter of any number of features, for sets too large for one place.

    Attributes:
        count: how many features.
        mean: `float64[D]`.
        scatter: `float64[D, D]`, sum of the products of distances from the mean.
    """

    count: int
    mean: npt.NDArray[np.float64]
    scatter: npt.NDArray[np.float64]

    @staticmethod
    def of(features: Features) -> FeatureMoments:
        """Return the moments of `float[N, D]`, N at least 1."""
        wide = features.astype(np.float64)
        mean = wide.mean(0)
        return FeatureMoments(len(wide), mean, (wide - mean).T @ (wide - mean))

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """Return the moments of both sets together, whichever is first.

        Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance".
        """
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = (self.count * self.mean + other.count * other.mean) / count
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return FeatureMoments(count, mean, self.scatter + other.scatter + between)

    def distance(self, other: FeatureMoments) -> float:
        """Return the squared Frechet distance between both; see `frechet_distance`.

        Raises:
            ValueError: one of them has fewer than two features.
        """
        if min(self.count, other.count) < 2:
            raise ValueError(f"got {self.count} and {other.count} features, expected two or more")
        shift = self.mean - other.mean
        one, two = (m.scatter / (m.count - 1) for m in (self, other))
        # The trace of (AB)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric.
        values, vectors = np.linalg.eigh(one)
        root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
        overlap = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(min=0)).sum()
        return max(0.0, float(shift @ shift + np.trace(one) + np.trace(two) - 2 * overlap))


def psnr(reference: Images, candidate: Images) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each pair in dB; infinite where they are equal.

    Args:
        reference: `uint8[N, H, W, C]`.
        candidate: `uint8[N, H, W, C]`.

    Raises:
        ValueError: the shapes or types are others.
    """
    _check_images(reference, candidate)
    error = (reference.astype(np.float64) - candidate).reshape(len(reference), -1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 / np.square(error).mean(1)), np.float64)


def ssim(reference: Images, candidate: Images) -> npt.NDArray[np.float64]:
    """Return the structural similarity of each pair, 1 where they are equal.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", section III with its 11x11 Gaussian window, as scikit-image computes it.

    Args:
        reference: `uint8[N, H, W, C]`, sides of at least 11.
        candidate: `uint8[N, H, W, C]`.

    Raises:
        ValueError: the shapes or types are others.
        MissingDependencyError: scikit-image is not installed.
    """
    _check_images(reference, candidate)
    if min(reference.shape[1:3]) < 11:
        raise ValueError(f"images are {reference.shape[1:3]}, SSIM needs sides of at least 11")
    metrics = require("skimage.metrics", extra="metrics")
    scores = [
        metrics.structural_similarity(
            one,
            other,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(reference, candidate, strict=True)
    ]
    return np.asarray(scores, np.float64)


def frechet_distance(real: Features, generated: Features) -> float:
    """Return the squared Frechet distance between two Gaussians fitted to the features.

    It falls as sets grow, so compare sets of equal sizes.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
    Nash Equilibrium", equation 6; the distance is Dowson and Landau's of 1982.

    Args:
        real: `float[N, D]`, N at least 2.
        generated: `float[M, D]`, M at least 2.

    Raises:
        ValueError: the features have other shapes, are too few, or are not finite.
    """
    real, generated = _checked_features(real, generated, at_least=2)
    return FeatureMoments.of(real).distance(FeatureMoments.of(generated))


def precision_recall(
    real: Features, generated: Features, *, neighbours: int = 3
) -> PrecisionRecall:
    """Return the share of each set that lies within the other's neighbourhoods.

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
    Models", equations 1 and 2; `neighbours` is the paper's k, and 3 its choice.

    Args:
        real: `float[N, D]`, N above `neighbours`.
        generated: `float[M, D]`, M above `neighbours`.
        neighbours: which nearest neighbour bounds a feature's neighbourhood.

    Raises:
        ValueError: the features have other shapes, are too few, or are not finite.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours: got {neighbours}, expected at least 1")
    real, generated = _checked_features(real, generated, at_least=neighbours + 1)
    return PrecisionRecall(
        precision=_covered(generated, real, neighbours),
        recall=_covered(real, generated, neighbours),
    )


def _covered(points: Features, centres: Features, neighbours: int) -> float:
    """Share of `points` within a neighbourhood of any of `centres`."""
    radii = np.concatenate(
        [
            # A feature is its own nearest, so the k-th other one stands at index k.
            np.partition(squares, neighbours, axis=1)[:, neighbours]
            for squares in _squared_distances(centres, centres)
        ]
    )
    hits = sum(
        int((squares <= radii).any(1).sum()) for squares in _squared_distances(points, centres)
    )
    return hits / len(points)


def _squared_distances(points: Features, centres: Features) -> Iterator[Features]:
    """Yield `float64[rows, centres]` of a bounded number of points at a time."""
    # Differences from a common middle keep the products small, and with them the rounding.
    middle = centres.mean(0)
    centres = centres - middle
    lengths = np.square(centres).sum(1)
    for start in range(0, len(points), _CHUNK_ROWS):
        rows = points[start : start + _CHUNK_ROWS] - middle
        yield np.square(rows).sum(1)[:, np.newaxis] + lengths - 2 * rows @ centres.T


def _check_images(reference: Images, candidate: Images) -> None:
    for name, images in (("reference", reference), ("candidate", candidate)):
        if images.ndim != 4 or images.dtype != np.uint8 or not images.size:
            raise ValueError(
                f"{name}: got {images.dtype}{list(images.shape)}, expected uint8[N, H, W, C]"
            )
    if reference.shape != candidate.shape:
        raise ValueError(
            f"images differ in shape: reference {reference.shape}, candidate {candidate.shape}"
        )


def _checked_features(
    real: Features, generated: Features, *, at_least: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or len(features) < at_least or not features.shape[1]:
            raise ValueError(
                f"{name}: features are {list(features.shape)}, expected [N, D] with N at least "
                f"{at_least}"
            )
        if not np.isfinite(features).all():
            raise ValueError(f"{name}: features hold NaN or infinity, expected finite numbers")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"features differ in length: real {real.shape[1]}, generated {generated.shape[1]}. "
            "Compute both with the same net."
        )
    return real.astype(np.float64), generated.astype(np.float64)
