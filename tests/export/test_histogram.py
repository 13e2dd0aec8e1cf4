"""Histograms of magnitudes: percentiles and errors are numpy's, whatever the range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.export.precision.histogram import Histogram

SEEDS = st.integers(0, 2**32 - 1)


def counted(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for values in parts:
        histogram.add(values, float(np.abs(values).max()))
    return histogram


def long_tailed(seed: int, size: float, count: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, count) * size).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-20, 1e20), st.floats(50, 99.99))
def test_percentiles_are_those_of_numpy(seed: int, size: float, percent: float) -> None:
    values = long_tailed(seed, size)
    wanted = np.percentile(np.abs(values), percent, method="inverted_cdf")
    assert wanted * 0.999 <= counted(values).percentile(percent) <= wanted * 1.009


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(0.05, 1))
def test_errors_are_those_of_rounding_and_clipping(seed: int, share: float) -> None:
    values = np.maximum(long_tailed(seed, 3.0), 0)
    top = float(values.max()) * share
    step = top / 127
    rounded = np.clip(np.rint(values / step), -127, 127) * step
    (found,) = counted(values).errors(np.array([top]))
    assert found == pytest.approx(float(((values - rounded) ** 2).mean()), rel=0.05)


def test_least_error_clips_a_single_far_value_and_not_a_flat_range() -> None:
    rng = np.random.default_rng(0)
    flat = rng.uniform(-1, 1, 300_000).astype(np.float32)
    assert counted(flat).least_error() == pytest.approx(1, rel=0.02)
    far = np.append(flat, np.float32(8))
    # Where (8 - t)^2 / 300,001 and (t / 127)^2 / 12 add up to least.
    assert counted(far).least_error() == pytest.approx(3.14, rel=0.06)
    assert counted(far).candidates()[0] == 8


def test_entropy_cuts_a_long_tail_and_keeps_a_flat_range() -> None:
    flat = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    assert counted(flat).entropy() == pytest.approx(1, rel=0.02)
    tail = counted(long_tailed(0, 1.0, 200_000))
    assert tail.percentile(99) < tail.entropy() < tail.largest / 2


def test_order_and_first_frames_do_not_matter() -> None:
    parts = [long_tailed(seed, size) for seed, size in enumerate((1e-9, 1.0, 50.0))]
    first, second = counted(*parts), counted(*parts[::-1])
    np.testing.assert_array_equal(first.counts, second.counts)
    assert first.candidates() == second.candidates()


def test_of_very_many_values_rows_are_counted_and_the_largest_is_exact() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 8, 512, 256)).astype(np.float32)
    values[0, 3, 100, 100] = 1000
    histogram = counted(values, values)
    assert histogram.largest == 1000
    assert histogram.counts.sum() == values.size / 2
    assert histogram.percentile(99) == pytest.approx(np.percentile(np.abs(values), 99), rel=0.02)
