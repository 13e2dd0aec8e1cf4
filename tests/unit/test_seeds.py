"""The numbers of a seed: pinned, normal, independent; and what seeds and inputs may be."""

from __future__ import annotations

import hashlib
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.seeds import (
    SEED_LIMIT,
    GeneratorInput,
    Label,
    Level,
    Normal,
    checked_seeds,
    generator_input,
    normal_numbers,
)


def test_the_numbers_of_a_seed_are_these_on_every_machine() -> None:
    numbers = np.stack([normal_numbers(seed, 0, 1001) for seed in (0, 7, 2**32, SEED_LIMIT - 1)])
    assert numbers.dtype == np.float32
    assert numbers[1, :3] == pytest.approx([-0.9792568, 1.1362473, 1.915151], rel=1e-6)
    digest = hashlib.sha256(numbers.astype("<f4").tobytes()).hexdigest()
    assert digest == "6f73ca935560fc76a226c2486fbef0a372492667776a6054bfb29752269cfd31"


def test_they_are_the_quantiles_of_philox() -> None:
    words = np.random.Philox(key=7, counter=[0, 0, 0, 3]).random_raw(500)
    bits = [half for word in words for half in (int(word) & 0xFFFFFFFF, int(word) >> 32)]
    normal = statistics.NormalDist()
    expected = [normal.inv_cdf((b + 0.5) / 2**32) for b in bits]
    np.testing.assert_allclose(normal_numbers(7, 3, 1000), expected, rtol=2e-7, atol=2e-7)


def test_they_are_standard_normal_and_independent() -> None:
    numbers = np.stack([normal_numbers(seed, 0, 100) for seed in range(2000)]).astype(np.float64)
    assert abs(numbers.mean()) < 0.01
    assert numbers.var() == pytest.approx(1, abs=0.02)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.1)
    others = np.stack([normal_numbers(seed, 1, 100) for seed in range(2000)])
    for one, other in (
        (numbers[:-1], numbers[1:]),
        (numbers, others),
        (numbers[:, :-1], numbers[:, 1:]),
    ):
        assert abs((one * other).mean()) < 0.01


@given(st.integers(0, SEED_LIMIT - 1), st.integers(1, 40))
def test_a_longer_draw_starts_with_the_shorter(seed: int, count: int) -> None:
    np.testing.assert_array_equal(
        normal_numbers(seed, 0, 50)[:count], normal_numbers(seed, 0, count)
    )


def test_one_seed_or_many() -> None:
    assert checked_seeds(3) == (3,)
    assert checked_seeds(np.int64(3)) == (3,)
    assert checked_seeds(range(2, 4)) == (2, 3)
    assert checked_seeds(np.array([SEED_LIMIT - 1], np.uint64)) == (SEED_LIMIT - 1,)


@pytest.mark.parametrize(
    ("seeds", "error", "message"),
    [
        ([], ValueError, "got none"),
        (-1, ValueError, "got -1, expected 0 to 18446744073709551615"),
        ([0, SEED_LIMIT], ValueError, "got 18446744073709551616"),
        (1.0, TypeError, "got 1.0"),
        ("7", TypeError, "got '7'"),
        ([True], TypeError, "got True"),
        (None, TypeError, "got None"),
    ],
)
def test_bad_seeds(seeds: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_seeds(seeds)


INPUTS: tuple[GeneratorInput, ...] = (
    Normal("latent", (5,)),
    Normal("noise", (2, 3)),
    Label("label", 10),
    Level("truncation", 0.7),
)


@pytest.mark.parametrize("item", INPUTS)
def test_drawn_values_fit_the_input_and_its_check(item: GeneratorInput) -> None:
    values = item.drawn((0, 7, SEED_LIMIT - 1), 0)
    assert item.spec.accepts(values.shape)
    assert values.dtype == item.spec.dtype.numpy
    item.check(values)
    assert generator_input(item.settings()) == item


def test_a_label_is_the_seed_s_remainder_and_a_level_its_default() -> None:
    assert Label("label", 10).drawn((3, 17, SEED_LIMIT - 1), 0).tolist() == [3, 7, 5]
    assert Level("truncation", 0.5).drawn((1, 2), 0).tolist() == [[0.5], [0.5]]


@pytest.mark.parametrize(
    ("item", "values", "message"),
    [
        (INPUTS[0], [[np.nan, 0, 0, 0, 0]], "'latent': holds NaN or infinity"),
        (INPUTS[1], [[[np.inf] * 3] * 2], "'noise': holds NaN or infinity"),
        (INPUTS[2], [0, 10], "'label': got 10, expected a class from 0 to 9"),
        (INPUTS[2], [-1, 3], "'label': got -1, expected a class from 0 to 9"),
        (INPUTS[3], [[np.nan]], "'truncation': holds NaN or infinity"),
    ],
)
def test_values_without_a_meaning(item: GeneratorInput, values: list[object], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        item.check(np.array(values))


@pytest.mark.parametrize(
    "item",
    [
        None,
        {},
        {"kind": "poem", "name": "x"},
        {"kind": "normal", "name": "x", "shape": "100"},
        {"kind": "label", "name": 3, "classes": 10},
        {"kind": "level", "name": "x", "default": None},
    ],
)
def test_settings_that_describe_no_input(item: object) -> None:
    with pytest.raises(BundleFormatError, match="is not an input"):
        generator_input(item)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normal("x", ()),
        lambda: Normal("x", (3, 0)),
        lambda: Label("x", 0),
        lambda: Level("x", float("nan")),
    ],
)
def test_inputs_that_make_no_sense(make: object) -> None:
    with pytest.raises(ValueError, match="input 'x'"):
        make()  # type: ignore[operator]
