"""Memory for answers, used again once the caller has dropped them.

A fresh array for every frame costs page faults for as long as the copy itself takes; after the
first few frames nothing is allocated here.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from edgevision.runtime.device.memory import Array

LEAST_BYTES = 1 << 16
"""Below, malloc has the memory at hand, and a lease would cost more than it saves."""

_KEPT = 8


class Recycler:
    """Copies one array, each copy the caller's own for as long as anything refers to it."""

    def __init__(self, source: Array) -> None:
        """Copy from `source`, whatever it holds by then."""
        self._source = source
        self._blocks: deque[Array] = deque(maxlen=_KEPT)

    def copy(self, source: Array | None = None) -> Array:
        """Return a copy of the array as it is now, or of another like it."""
        try:
            block = self._blocks.pop()
        except IndexError:
            block = np.empty_like(self._source)
        answer = np.asarray(_Lease(block, self._blocks))
        answer[...] = self._source if source is None else source
        return answer


class _Lease:
    """What numpy keeps as the base of an answer and of all its views; the last one drops it."""

    __slots__ = ("__array_interface__", "_block", "_blocks")

    def __init__(self, block: Array, blocks: deque[Array]) -> None:
        self._block, self._blocks = block, blocks
        self.__array_interface__: Any = block.__array_interface__

    def __del__(self) -> None:
        self._blocks.append(self._block)
