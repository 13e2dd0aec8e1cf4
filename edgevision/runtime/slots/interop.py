"""Arrays of other libraries, taken by protocol and without a copy: DLPack and CUDA arrays.

Sources: numba's "CUDA Array Interface (Version 3)" and the array API's "DLPack" data interchange.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import FrameError
from edgevision.runtime.device.memory import Array

_LEGACY_STREAM = 1
_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Memory on the device that another library owns.

    Attributes:
        address: where it is.
        dtype: of its elements, which lie in C order without gaps.
        shape: of the array.
        stream: the CUDA stream that last wrote it; None where the owner says it is ready.
        owner: what keeps the memory alive.
    """

    address: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    stream: int | None
    owner: object

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def imported(feed: object, spec: TensorSpec) -> Array | DeviceArray:
    """Return `feed` as a numpy array, or as an array on the device.

    Raises:
        FrameError: it is neither, or it does not say when its memory is ready.
    """
    if isinstance(feed, np.ndarray | DeviceArray):
        return feed
    if hasattr(feed, "__cuda_array_interface__"):
        return _from_cuda_array(feed, spec)
    if hasattr(feed, "__dlpack_device__"):
        return _from_dlpack(feed, spec)
    raise FrameError(
        f"input '{spec.name}': got {type(feed).__name__}, expected a numpy array {spec} "
        "(or an object with __dlpack__ or __cuda_array_interface__)"
    )


def _from_cuda_array(feed: Any, spec: TensorSpec) -> DeviceArray:
    interface: Mapping[str, Any] = feed.__cuda_array_interface__
    if interface.get("version", 0) < 3 or "stream" not in interface:
        raise FrameError(
            f"input '{spec.name}': its __cuda_array_interface__ (version "
            f"{interface.get('version')}) names no stream, so nobody knows when it is written. "
            "Synchronise its stream and give a version 3 interface with 'stream': None."
        )
    stream = interface["stream"]
    if stream == 0:
        raise FrameError(
            f"input '{spec.name}': __cuda_array_interface__ says stream 0, which the protocol "
            "leaves undefined. Give 1 (legacy default), 2 (per thread), or the stream's handle."
        )
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(extent) for extent in interface["shape"])
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _c_strides(shape, dtype.itemsize):
        raise FrameError(
            f"input '{spec.name}': its elements have gaps or another order (strides "
            f"{tuple(strides)}). Make it contiguous first."
        )
    return DeviceArray(int(interface["data"][0]), dtype, shape, stream, feed)


def _from_dlpack(feed: Any, spec: TensorSpec) -> Array | DeviceArray:
    kind, _ = feed.__dlpack_device__()
    if int(kind) in (_CPU, _CUDA_HOST):
        return np.from_dlpack(feed)
    if int(kind) not in (_CUDA, _CUDA_MANAGED):
        raise FrameError(
            f"input '{spec.name}': its memory is on a device of DLPack kind {int(kind)}; expected "
            "CPU or CUDA memory"
        )
    # The producer orders its work before ours on the stream that it is given.
    return _Managed(feed.__dlpack__(stream=_LEGACY_STREAM)).array(spec)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DTYPES = {
    (1, 8): "uint8",
    (0, 8): "int8",
    (0, 32): "int32",
    (0, 64): "int64",
    (2, 16): "float16",
    (2, 32): "float32",
    (6, 8): "bool",
}


class _Managed:
    """A "dltensor" capsule; unconsumed, the capsule itself owns and frees the tensor."""

    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def array(self, spec: TensorSpec) -> DeviceArray:
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = _Tensor.from_address(pointer(self.capsule, b"dltensor"))
        name = _DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
        if name is None:
            raise FrameError(
                f"input '{spec.name}': DLPack type code {tensor.code}, {tensor.bits} bits is "
                f"not {spec.dtype.value}"
            )
        dtype = np.dtype(name)
        shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
        if tensor.strides:
            strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
            if strides != _c_strides(shape, dtype.itemsize):
                raise FrameError(
                    f"input '{spec.name}': its elements have gaps or another order (strides "
                    f"{strides}). Make it contiguous first."
                )
        address = int(tensor.data or 0) + int(tensor.byte_offset)
        return DeviceArray(address, dtype, shape, _LEGACY_STREAM, self)


def _c_strides(shape: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    strides, step = [], item_bytes
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))
