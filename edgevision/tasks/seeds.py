"""What a generator takes, and the numbers that a seed stands for, the same on every machine.

A seed is the key of the counter-based generator Philox4x64-10 (Salmon et al. 2011, "Parallel
Random Numbers: As Easy as 1, 2, 3", section 3.3) in numpy's `Philox(key=seed,
counter=[0, 0, 0, s])`; the stream `s` is the input's place among the model's inputs, from 0. Each
64-bit word gives two 32-bit numbers, the low half first, and each number b the normal quantile of
(b + 1/2) / 2**32. The quantile takes additions, products, quotients and roots of float64 only,
which IEEE 754 rounds to one result: no library's logarithm has a say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.reading import JsonValue
from edgevision.bundle.tensors import DYNAMIC, Array, DType, TensorSpec
from edgevision.errors import BundleFormatError, FrameError

Floats = npt.NDArray[np.float64]

SEED_LIMIT = 2**64
_MAX_CLASSES = 1 << 20


@dataclass(frozen=True, slots=True)
class Normal:
    """An input of standard normal numbers, `float32[N, *shape]`: a latent, or noise."""

    kind: ClassVar[str] = "normal"
    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.shape or any(extent < 1 for extent in self.shape):
            raise ValueError(f"input '{self.name}': got shape {self.shape}, expected e.g. (100,)")

    @property
    def spec(self) -> TensorSpec:
        """The graph's input."""
        return TensorSpec(self.name, DType.FLOAT32, (DYNAMIC, *self.shape))

    def drawn(self, seeds: tuple[int, ...], stream: int) -> Array:
        """Return what the seeds stand for."""
        size = math.prod(self.shape)
        drawn = np.stack([normal_numbers(seed, stream, size) for seed in seeds])
        return drawn.reshape(-1, *self.shape)

    def check(self, values: Array) -> None:
        """Raise FrameError where a value is not a number."""
        if not np.isfinite(values).all():
            raise FrameError(f"input '{self.name}': holds NaN or infinity, expected finite numbers")

    def settings(self) -> dict[str, JsonValue]:
        """Return the input as `generator_input` reads it."""
        return {"kind": self.kind, "name": self.name, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Label:
    """An input of class indices, `int64[N]`; a seed stands for its remainder by `classes`."""

    kind: ClassVar[str] = "label"
    name: str
    classes: int

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= _MAX_CLASSES:
            raise ValueError(
                f"input '{self.name}': got {self.classes} classes, expected 1 to {_MAX_CLASSES}"
            )

    @property
    def spec(self) -> TensorSpec:
        """The graph's input."""
        return TensorSpec(self.name, DType.INT64, (DYNAMIC,))

    def drawn(self, seeds: tuple[int, ...], stream: int) -> Array:
        """Return what the seeds stand for."""
        return np.array([seed % self.classes for seed in seeds], np.int64)

    def check(self, values: Array) -> None:
        """Raise FrameError where an index names no class: a GPU would read past its table."""
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= self.classes:
            raise FrameError(
                f"input '{self.name}': got {low if low < 0 else high}, expected a class from 0 to "
                f"{self.classes - 1}"
            )

    def settings(self) -> dict[str, JsonValue]:
        """Return the input as `generator_input` reads it."""
        return {"kind": self.kind, "name": self.name, "classes": self.classes}


@dataclass(frozen=True, slots=True)
class Level:
    """An input of one number a picture, `float32[N, 1]`, such as truncation; seeds leave it."""

    kind: ClassVar[str] = "level"
    name: str
    default: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.default):
            raise ValueError(f"input '{self.name}': default {self.default} is not a finite number")

    @property
    def spec(self) -> TensorSpec:
        """The graph's input."""
        return TensorSpec(self.name, DType.FLOAT32, (DYNAMIC, 1))

    def drawn(self, seeds: tuple[int, ...], stream: int) -> Array:
        """Return the default for every seed."""
        return np.full((len(seeds), 1), self.default, np.float32)

    def check(self, values: Array) -> None:
        """Raise FrameError where a value is not a number."""
        if not np.isfinite(values).all():
            raise FrameError(f"input '{self.name}': holds NaN or infinity, expected finite numbers")

    def settings(self) -> dict[str, JsonValue]:
        """Return the input as `generator_input` reads it."""
        return {"kind": self.kind, "name": self.name, "default": self.default}


GeneratorInput = Normal | Label | Level


def generator_input(item: object) -> GeneratorInput:
    """Return the input that `item`, made by `settings()`, describes.

    Raises:
        BundleFormatError: it describes none.
    """
    match item:
        case {"kind": "normal", "name": str(name), "shape": [*shape]}:
            values = tuple(v for v in shape if isinstance(v, int))
            found: GeneratorInput = Normal(name, values if len(values) == len(shape) else ())
        case {"kind": "label", "name": str(name), "classes": int(classes)}:
            found = Label(name, classes)
        case {"kind": "level", "name": str(name), "default": int() | float() as default}:
            found = Level(name, float(default))
        case _:
            raise BundleFormatError(
                f"task generated: {item!r:.80} is not an input; expected kind normal, label or "
                "level"
            )
    return found


def checked_seeds(seeds: object) -> tuple[int, ...]:
    """Return one seed or many as a tuple.

    Raises:
        TypeError: one is not an integer.
        ValueError: there is none, or one is not 0 to 2**64 - 1.
    """
    listed = [seeds] if isinstance(seeds, int | np.integer) else seeds
    if isinstance(listed, str) or not hasattr(listed, "__iter__"):
        raise TypeError(f"seeds: got {seeds!r:.40}, expected an integer or some of them")
    found = []
    for seed in listed:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"seeds: got {seed!r:.40}, expected integers")
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seeds: got {seed}, expected 0 to {SEED_LIMIT - 1} (2**64 - 1)")
        found.append(int(seed))
    if not found:
        raise ValueError("seeds: got none, expected at least one: a picture is made of each")
    return tuple(found)


def normal_numbers(seed: int, stream: int, count: int) -> npt.NDArray[np.float32]:
    """Return the first `count` standard normal numbers of a seed's stream."""
    words = np.random.Philox(key=seed, counter=[0, 0, 0, stream]).random_raw((count + 1) // 2)
    halves = np.asarray(words).astype("<u8").view("<u4")[:count]
    return _quantile((halves + 0.5) * 2.0**-32).astype(np.float32)


def _quantile(p: Floats) -> Floats:
    """Return the normal quantile, to about 1 in 10**7.

    Source: Wichura 1988, "Algorithm AS 241: The Percentage Points of the Normal Distribution",
    function PPND7. Its last branch, for p below exp(-25), is out of reach of 32 bits.
    """
    q = p - 0.5
    r = 0.180625 - q * q
    numerator = _polynomial(r, 3.3871327179, 50.434271938, 159.29113202, 59.109374720)
    middle = q * numerator / _polynomial(r, 1.0, 17.895169469, 78.757757664, 67.187563600)
    is_tail = np.abs(q) > 0.425
    tail = q[is_tail]
    r = np.sqrt(-_logarithm(0.5 - np.abs(tail))) - 1.6
    numerator = _polynomial(r, 1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103)
    ends = numerator / _polynomial(r, 1.0, 0.73700164250, 0.12021132975)
    middle[is_tail] = np.copysign(ends, tail)
    return np.asarray(middle)


def _polynomial(x: Floats, *coefficients: float) -> Floats:
    """Evaluate by Horner's rule, lowest power first; numpy fuses no two steps."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _logarithm(x: Floats) -> Floats:
    """Return ln x to 10 digits: 2 artanh of the mantissa as a series, and the exponent's share."""
    mantissa, exponent = np.frexp(x)
    root = math.sqrt(0.5)
    t = (mantissa - root) / (mantissa + root)
    series = _polynomial(t * t, *(1 / (2 * k + 1) for k in range(7)))
    return np.asarray(2 * t * series + (exponent - 0.5) * 0.6931471805599453)
