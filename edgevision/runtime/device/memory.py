"""Buffers: memory that is owned and freed once, or borrowed and left alone."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import ClosedError

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]


class Buffer:
    """A block of memory, on the host or on a device.

    Made by a device, which frees it in `close()`; or by `borrow` over memory of someone else, who
    is kept alive as `owner` and whose memory is never freed here.

    Attributes:
        address: what engines take: the device's address, or the host's where they are one; 0 for
            host memory that no engine can reach.
        host: uint8[size_bytes] view of the memory; None if the host cannot reach it.
        size_bytes: its size.
        label: names it in errors.
    """

    __slots__ = ("_free", "address", "handle", "host", "is_open", "label", "owner", "size_bytes")

    def __init__(
        self,
        *,
        address: int,
        host: Bytes | None,
        size_bytes: int,
        label: str,
        free: Callable[[], None] | None,
        owner: object = None,
        handle: object = None,
    ) -> None:
        """Describe memory; `free` is called once, `handle` is the binding's own name for it."""
        if free is not None and owner is not None:
            raise ValueError(f"buffer '{label}': either frees its memory or borrows it")
        self.address = address
        self.host = host
        self.size_bytes = size_bytes
        self.label = label
        self.owner = owner
        self.handle = handle
        self.is_open = True
        self._free = free

    @staticmethod
    def borrow(
        owner: object, *, address: int, host: Bytes | None, size_bytes: int, label: str
    ) -> Buffer:
        """Return a buffer over memory of `owner`, which is kept alive and never freed here."""
        return Buffer(
            address=address,
            host=host,
            size_bytes=size_bytes,
            label=label,
            free=None,
            owner=owner,
        )

    def view(self, spec: TensorSpec) -> Array:
        """Return the start of the memory as a tensor, a view valid until `close()`.

        Raises:
            ClosedError: the buffer is closed.
            ValueError: the host cannot reach it, or it is too small.
        """
        if not self.is_open:
            raise ClosedError(f"buffer '{self.label}' is closed; open its session again")
        if self.host is None:
            raise ValueError(f"buffer '{self.label}' is device memory; copy it to the host first")
        size_bytes = math.prod(spec.shape) * spec.dtype.element_bytes
        if size_bytes > self.size_bytes:
            raise ValueError(
                f"buffer '{self.label}' has {self.size_bytes} bytes, {spec} needs {spec.size_bytes}"
            )
        return self.host[:size_bytes].view(spec.dtype.numpy).reshape(spec.shape)

    def close(self) -> None:
        """Free the memory if it is owned; safe to call twice."""
        if self.is_open:
            self.is_open = False
            self.host = None
            self.address = 0
            if self._free is not None:
                free, self._free = self._free, None
                free()
            self.handle = self.owner = None


def host_bytes(address: int, size_bytes: int) -> Bytes:
    """Return uint8[size_bytes] over host memory that the caller keeps alive."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
