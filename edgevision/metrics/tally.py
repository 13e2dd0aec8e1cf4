"""What frames add up to: counts, exact sums and rows, merged in any order to the same digits.

Floats that are added in another order give another last digit, so that a score would tell how its
frames were shared out. Here a float counts as the whole number that it is in units of the smallest
one there is, and rows are sorted before anybody reads them: nothing is left that has an order.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Rows = npt.NDArray[Any]

_UNITS = 1 << 1074
"""Units in 1.0: every finite float64 is a whole number of them."""

_TEXT = np.dtype([("frame", "<i8"), ("part", "<i4"), ("bytes", "S64")])


class Tally:
    """Counts, exact sums and rows by name; what a metric keeps of any number of frames.

    Two tallies of the same metric merge; which is merged into which, and in what order, changes
    nothing that can be read here.

    Example:
        >>> one, other = Tally(), Tally()
        >>> one.add("error", 0.1), other.add("error", 0.2), one.merge(other)
        (None, None, None)
        >>> one.total("error")
        0.30000000000000004
    """

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}
        self._sums: dict[str, int] = {}
        self._rows: dict[str, list[Rows]] = {}

    def count(self, name: str, counts: npt.ArrayLike) -> None:
        """Add whole numbers: one, or an array of them, whose first axis may grow."""
        more = np.array(counts, np.int64)
        have = self._counts.get(name)
        if have is None:
            self._counts[name] = more
        elif have.shape == more.shape:
            have += more
        else:
            long, short = (have, more) if len(have) > len(more) else (more, have)
            long[: len(short)] += short
            self._counts[name] = long

    def add(self, name: str, value: float) -> None:
        """Add a float to a sum, exactly.

        Raises:
            ValueError: it is NaN or infinite.
        """
        if not math.isfinite(value):
            raise ValueError(f"{name}: got {value}, expected a finite number")
        numerator, denominator = float(value).as_integer_ratio()
        units = numerator * (_UNITS // denominator)
        self._sums[name] = self._sums.get(name, 0) + units

    def extend(self, name: str, rows: Rows) -> None:
        """Keep rows of a structured dtype, whose first fields say which row it is."""
        if len(rows):
            self._rows.setdefault(name, []).append(rows)

    def write(self, name: str, frame: int, text: str) -> None:
        """Keep a text of a frame, without zeros in it."""
        data, width = text.encode(), _TEXT["bytes"].itemsize
        parts = [data[k : k + width] for k in range(0, len(data), width)]
        self.extend(name, np.array([(frame, k, part) for k, part in enumerate(parts)], _TEXT))

    def merge(self, other: Tally) -> None:
        """Take in what `other` holds."""
        for name, counts in other._counts.items():
            self.count(name, counts)
        for name, units in other._sums.items():
            self._sums[name] = self._sums.get(name, 0) + units
        for name, rows in other._rows.items():
            self._rows.setdefault(name, []).extend(rows)

    def counts(self, name: str) -> Counts:
        """Return a count; 0 where nothing was counted."""
        return self._counts.get(name, np.zeros((), np.int64)).copy()

    def number(self, name: str) -> int:
        """Return a count that is one number."""
        return int(self.counts(name))

    def total(self, name: str) -> float:
        """Return a sum, rounded once; 0 where nothing was added."""
        return self._sums.get(name, 0) / _UNITS

    def rows(self, name: str, dtype: npt.DTypeLike) -> Rows:
        """Return all rows of a name, sorted by their fields."""
        kept = self._rows.get(name)
        if kept is None:
            return np.empty(0, dtype)
        whole = np.sort(np.concatenate(kept))
        self._rows[name] = [whole]
        return whole

    def texts(self, name: str) -> Iterator[tuple[int, str]]:
        """Give each frame that a text was kept of, in order, and its text."""
        rows = self.rows(name, _TEXT)
        starts = np.flatnonzero(rows["part"] == 0)
        for start, end in itertools.pairwise([*starts, len(rows)]):
            yield int(rows["frame"][start]), b"".join(rows["bytes"][start:end].tolist()).decode()

    def to_bytes(self) -> bytes:
        """Return it as the bytes of an .npz file; equal tallies give equal bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in sorted(self._counts):
            arrays[f"count/{name}"] = self._counts[name]
        for name, rows in sorted(self._rows.items()):
            arrays[f"rows/{name}"] = self.rows(name, rows[0].dtype)
        sums = json.dumps({name: f"{units:x}" for name, units in sorted(self._sums.items())})
        arrays["sums"] = np.frombuffer(sums.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Tally:
        """Return what `to_bytes` wrote.

        Raises:
            ValueError: the bytes are something else.
        """
        tally = Tally()
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                for key in arrays.files:
                    kind, _, name = key.partition("/")
                    if kind == "count":
                        tally._counts[name] = arrays[key].astype(np.int64)
                    elif kind == "rows":
                        tally._rows[name] = [arrays[key]]
                sums = json.loads(arrays["sums"].tobytes())
        except Exception as error:  # zip files fail in a dozen ways
            raise ValueError(f"not a saved tally: {error}") from error
        tally._sums = {name: int(units, 16) for name, units in sums.items()}
        return tally
