"""Outputs as a whole: what a share of elements does not see is seen, and ties are no fault."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.forms import FP16, FP32, INT8
from edgevision.tasks.tensors import TASK
from edgevision.tasks.whole import class_axis

Floats = npt.NDArray[np.float64]
FORMS = st.sampled_from([FP32, FP16, INT8])


def failed(before: Floats, after: Floats, form: object = INT8) -> list[str]:
    golden = {"y": before}
    bars = TASK.tolerances(form, golden)  # type: ignore[arg-type]
    reports = TASK.compare(golden, {"y": after}, bars, name="form")
    return [report.name for report in reports if not report.passed]


def reader(axis: int) -> tuple[Floats, Floats]:
    """Characters of 4,000, and the same with every sixth one read as its neighbour."""
    said = np.random.default_rng(0).integers(0, 3999, (3, 1, 60))
    other = np.where(np.arange(60) % 6 == 0, said + 1, said)
    eye = np.eye(4000)
    return np.moveaxis(eye[said], -1, axis), np.moveaxis(eye[other], -1, axis)


@pytest.mark.parametrize("axis", [-1, 2])
def test_characters_read_otherwise_are_found_among_thousands(axis: int) -> None:
    before, after = reader(axis)
    assert np.mean(before != after) < 1e-3
    assert failed(before, after) == ["form/y (noise)", "form/y (likeliest class)"]
    logs = (np.log(x * 0.999 + 0.001 / 4000) for x in (before, after))
    assert "form/y (likeliest class)" in failed(*logs)


def test_a_lost_peak_of_a_heat_map_is_found() -> None:
    before = np.zeros((2, 1, 1, 64, 64))
    before[:, 0, 0, 5, 9] = 1
    assert failed(before, np.zeros_like(before)) == ["form/y (noise)"]


@given(st.integers(0, 99), FORMS)
def test_ties_and_small_noise_are_no_fault(seed: int, form: object) -> None:
    rng = np.random.default_rng(seed)
    before = rng.dirichlet(np.ones(5), (3, 1, 40))
    before[..., 1] = before[..., 0]
    assert not failed(before, before + rng.uniform(-1e-6, 1e-6, before.shape), form)
    assert not failed(before * np.inf, before * np.inf, form)
    assert not failed(np.zeros((3, 1, 4)), np.zeros((3, 1, 4)), form)


def test_only_probabilities_look_like_classes() -> None:
    rng = np.random.default_rng(0)
    assert class_axis(rng.normal(size=(3, 1, 40, 7))) is None
    assert class_axis(rng.uniform(size=(3, 1, 40, 7))) is None
    assert class_axis(np.ones((3, 1, 1))) is None
    assert class_axis(rng.dirichlet(np.ones(5), (3, 1, 40))) == -1
