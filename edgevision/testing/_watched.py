"""Host memory of a simulated device: an array that asks before it is read or written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Ask = Callable[[bool], None]
"""Called with True before a write and False before a read; raises HazardError."""

# What numpy calls with an array that it writes to, by position.
_WRITES_FIRST = {np.copyto, np.put, np.place, np.putmask, np.fill_diagonal}


class WatchedArray(np.ndarray[Any, Any]):
    """A view of simulated host memory; views of it are watched as well, copies are plain.

    Reads that bypass Python, such as `numpy.asarray`, are not seen; they find the memory as the
    device has left it so far, which in the lazy order is what was there before.
    """

    _ask: Ask | None = None

    def __array_finalize__(self, parent: Any) -> None:
        """Watch views of watched arrays."""
        self._ask = getattr(parent, "_ask", None)

    def __getitem__(self, key: Any) -> Any:
        """Return an element, or a part that is watched too."""
        part = super().__getitem__(key)
        if not isinstance(part, WatchedArray):
            self._allow(writes=False)
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write elements."""
        self._allow(writes=True)
        super().__setitem__(key, plain(value))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        """Compute with the values, on plain arrays."""
        out = keywords.get("out", ())
        _allow_all(inputs, writes=False)
        _allow_all(out, writes=True)
        if out:
            keywords["out"] = tuple(plain(array) for array in out)
        return getattr(ufunc, method)(*(plain(array) for array in inputs), **keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        """Call numpy's function, on plain arrays."""
        if function in _WRITES_FIRST:
            _allow_all(args[:1], writes=True)
            _allow_all(args[1:], writes=False)
        else:
            _allow_all(args, writes=False)
        return function(*_plain_all(args), **{k: plain(v) for k, v in keywords.items()})

    def copy(self, *args: Any, **keywords: Any) -> Any:
        """Return a plain copy."""
        self._allow(writes=False)
        return plain(self).copy(*args, **keywords)

    def astype(self, *args: Any, **keywords: Any) -> Any:
        """Return a plain converted copy."""
        self._allow(writes=False)
        return plain(self).astype(*args, **keywords)

    def tobytes(self, *args: Any, **keywords: Any) -> bytes:
        """Return the bytes."""
        self._allow(writes=False)
        return bytes(plain(self).tobytes(*args, **keywords))

    def fill(self, value: Any) -> None:
        """Write `value` everywhere."""
        self._allow(writes=True)
        plain(self).fill(value)

    def __iter__(self) -> Any:
        self._allow(writes=False)
        return iter(plain(self))

    def _allow(self, *, writes: bool) -> None:
        if self._ask is not None:
            self._ask(writes)


def watched(array: np.ndarray[Any, Any], ask: Ask) -> WatchedArray:
    """Return a watched view of `array`."""
    view = array.view(WatchedArray)
    view._ask = ask
    return view


def plain(value: Any) -> Any:
    """Return a watched array as the plain view of the same memory, anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, WatchedArray) else value


def _plain_all(values: Iterable[Any]) -> list[Any]:
    return [
        type(v)(plain(inner) for inner in v) if isinstance(v, list | tuple) else plain(v)
        for v in values
    ]


def _allow_all(values: Iterable[Any], *, writes: bool) -> None:
    for value in values:
        if isinstance(value, WatchedArray):
            value._allow(writes=writes)
        elif isinstance(value, list | tuple):
            _allow_all(value, writes=writes)
