"""Tensor descriptions, against numpy's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec

EXTENTS = st.integers(1, 6)
SHAPES = st.lists(EXTENTS, max_size=5).map(tuple)


@given(st.sampled_from(DType), SHAPES)
def test_size_is_numpys(dtype: DType, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype.numpy)
    assert TensorSpec("x", dtype, shape).size_bytes == array.nbytes
    assert dtype.element_bytes == array.itemsize
    assert DType.from_numpy(array.dtype) is dtype


@pytest.mark.parametrize("dtype", ["float64", "complex64", "object", "U3", "M8[s]", "uint16"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="not supported; supported: bool, uint8"):
        DType.from_numpy(dtype)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("", (1,), "needs a name"),
        ("x", (0,), r"'x': bad shape \(0,\)"),
        ("x", (1, -2), "bad shape"),
        ("x", (1,) * 9, "rank 9, at most 8"),
    ],
)
def test_bad_specs_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSpec(name, DType.UINT8, shape)


@given(SHAPES, SHAPES)
def test_a_fixed_spec_accepts_its_shape_alone(
    shape: tuple[int, ...], other: tuple[int, ...]
) -> None:
    spec = TensorSpec("x", DType.INT8, shape)
    assert spec.accepts(shape)
    assert spec.accepts(other) == (shape == other)
    assert not spec.accepts((*shape, 1))
    assert not spec.is_dynamic


@given(SHAPES.filter(len), st.data())
def test_a_dynamic_dimension_accepts_any_extent(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    spec = TensorSpec("x", DType.INT8, (*shape[:axis], DYNAMIC, *shape[axis + 1 :]))
    assert spec.is_dynamic
    assert spec.accepts((*shape[:axis], data.draw(st.integers(1, 10**6)), *shape[axis + 1 :]))
    assert spec.with_shape(shape) == TensorSpec("x", DType.INT8, shape)
    with pytest.raises(ValueError, match="no fixed size"):
        _ = spec.size_bytes


def test_specs_print_as_people_write_them() -> None:
    spec = TensorSpec("frame", DType.UINT8, (DYNAMIC, 360, 480, 3))
    assert str(spec) == "frame: uint8[?, 360, 480, 3]"
    assert str(TensorSpec("scale", DType.FLOAT32, ())) == "scale: float32[]"


@given(SHAPES, SHAPES, SHAPES, SHAPES)
def test_profiles_hold_their_order(
    low: tuple[int, ...], mid: tuple[int, ...], high: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    same_rank = len(low) == len(mid) == len(high)
    ordered = same_rank and all(a <= b <= c for a, b, c in zip(low, mid, high, strict=True))
    if not ordered:
        with pytest.raises(ValueError, match="minimum <= optimum <= maximum"):
            ShapeProfile(low, mid, high)
        return
    profile = ShapeProfile(low, mid, high)
    inside = len(shape) == len(low) and bool(
        np.all((np.array(low) <= np.array(shape)) & (np.array(shape) <= np.array(high)))
    )
    assert profile.allows(shape) == inside
    assert all(profile.allows(own) for own in (low, mid, high))


@given(st.lists(st.tuples(EXTENTS, EXTENTS), min_size=3, max_size=3))
def test_a_profile_of_sorted_extents_is_good(corners: list[tuple[int, int]]) -> None:
    (low_h, mid_h, high_h), (low_w, mid_w, high_w) = map(sorted, zip(*corners, strict=True))
    low, mid, high = (low_h, low_w), (mid_h, mid_w), (high_h, high_w)
    profile = ShapeProfile(low, mid, high)
    assert profile.allows(mid)
    assert not profile.allows((high[0] + 1, high[1]))
    assert not profile.allows((*mid, 1))


def test_a_profile_starts_at_one() -> None:
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        ShapeProfile((0, 3), (1, 3), (2, 3))
