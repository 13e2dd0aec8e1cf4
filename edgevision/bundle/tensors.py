"""Tensor descriptions: the only place that knows dtypes, shapes and byte counts."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]
Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

DYNAMIC = -1
"""A dimension whose extent is given at run time, within a `ShapeProfile`."""

NEXT = "_next"
"""What an output is called that is an input of the next run: that input's name, and this."""

_MAX_RANK = 8
_MAX_EXTENT = 1 << 31


class DType(enum.Enum):
    """Element types that cross a model's boundary; the value is numpy's name for it."""

    BOOL = "bool"
    UINT8 = "uint8"
    INT8 = "int8"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype."""
        return np.dtype(self.value)

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @staticmethod
    def from_numpy(dtype: npt.DTypeLike) -> DType:
        """Return the DType of a numpy dtype.

        Raises:
            ValueError: no engine takes this dtype.
        """
        name = np.dtype(dtype).name
        try:
            return DType(name)
        except ValueError:
            known = ", ".join(d.value for d in DType)
            raise ValueError(f"dtype {name} is not supported; supported: {known}") from None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; DYNAMIC (-1) marks a run-time dimension."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tensor needs a name")
        if len(self.shape) > _MAX_RANK:
            raise ValueError(f"tensor '{self.name}': rank {len(self.shape)}, at most {_MAX_RANK}")
        if any(d != DYNAMIC and not 1 <= d < _MAX_EXTENT for d in self.shape):
            raise ValueError(f"tensor '{self.name}': bad shape {self.shape}")

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is given at run time."""
        return DYNAMIC in self.shape

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor; ValueError while a dimension is dynamic."""
        if self.is_dynamic:
            raise ValueError(f"tensor '{self.name}' has no fixed size: {self.shape}")
        return math.prod(self.shape) * self.dtype.element_bytes

    def with_shape(self, shape: tuple[int, ...]) -> TensorSpec:
        """Return the spec with another shape."""
        return TensorSpec(self.name, self.dtype, shape)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` fits, any extent going for a dynamic dimension."""
        return len(shape) == len(self.shape) and all(
            want in (DYNAMIC, have) for want, have in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        """Return e.g. `frame: uint8[1, 360, 480, 3]`."""
        dims = ", ".join("?" if d == DYNAMIC else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype.value}[{dims}]"


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """Smallest, usual and largest shape of one dynamic input."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that minimum <= optimum <= maximum; TensorRT-RTX takes less silently."""
        shapes = (self.minimum, self.optimum, self.maximum)
        ranks = {len(s) for s in shapes}
        if len(ranks) != 1 or any(
            not 1 <= low <= mid <= high < _MAX_EXTENT
            for low, mid, high in zip(*shapes, strict=True)
        ):
            raise ValueError(f"profile: need 1 <= minimum <= optimum <= maximum, got {shapes}")

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` lies within the profile."""
        return len(shape) == len(self.minimum) and all(
            low <= have <= high
            for low, have, high in zip(self.minimum, shape, self.maximum, strict=True)
        )


Profiles = Mapping[str, ShapeProfile]
"""One profile per dynamic input, by tensor name."""
