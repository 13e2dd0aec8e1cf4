"""Arrays of other libraries, taken by protocol and without a copy: DLPack and CUDA arrays.

Sources: numba's "CUDA Array Interface (Version 3)" and the array API's "DLPack" data interchange.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevision.bundle.tensors import Array, TensorSpec
from edgevision.errors import FrameError

_LEGACY_STREAM = 1
_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Memory on the device that another library owns.

    Attributes:
        address: where it is.
        dtype: of its elements, which lie in C order without gaps.
        shape: of the array.
        stream: the CUDA stream that it is ready on; None where the owner says it is ready.
        owner: what keeps the memory alive.
        ordinal: which GPU it is on; None where its owner does not say.
        is_written_on_stream: whether `stream` is also where the owner will write it again.
    """

    address: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    stream: int | None
    owner: object
    ordinal: int | None = None
    is_written_on_stream: bool = True

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class SeparateArrays:
    """Arrays in memory of their own that stand for one, put together along the first axis.

    Nobody copies them before they are where the engine reads them.

    Attributes:
        parts: of one dtype and, but for the first axis, of one shape.
    """

    parts: tuple[Any, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the elements."""
        found: np.dtype[np.generic] = self.parts[0].dtype
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them together."""
        return sum(array_length(part) for part in self.parts), *self.parts[0].shape[1:]

    def imported(self, spec: TensorSpec) -> SeparateArrays:
        """Return them imported; see `import_array`.

        Raises:
            FrameError: one cannot be, is on a GPU, or differs from the first.
        """
        found = tuple(import_array(part, spec) for part in self.parts)
        for number, part in enumerate(found):
            if isinstance(part, DeviceArray):
                raise FrameError(
                    f"input '{spec.name}': number {number} of a list is on a GPU. Frames there are "
                    "taken as one array with the cameras first; stack them, or copy to the host."
                )
            if (part.dtype, part.shape[1:]) != (found[0].dtype, found[0].shape[1:]):
                raise FrameError(
                    f"input '{spec.name}': the first of a list is {found[0].dtype}"
                    f"{list(found[0].shape[1:])}, number {number} {part.dtype}"
                    f"{list(part.shape[1:])}. Cameras of one call give frames of one size."
                )
        return SeparateArrays(found)

    def copy_to(self, target: Array) -> None:
        """Copy them, which are on the host, into memory of their size."""
        begin = 0
        for part in self.parts:
            end = begin + array_length(part)
            target[begin:end] = part
            begin = end


def array_length(part: Any) -> int:
    """Return how long an array of any library is along its first axis."""
    return int(part.shape[0])


def import_array(feed: object, spec: TensorSpec) -> Array | DeviceArray:
    """Return `feed` as a numpy array, or as an array on the device.

    DLPack is asked first: its owner orders the work itself, and says which GPU it is on.

    Raises:
        FrameError: it is neither, cannot be given away, or does not say when its memory is ready.
    """
    if isinstance(feed, np.ma.MaskedArray):
        raise FrameError(
            f"input '{spec.name}': got a masked array, and a model has no use for the mask. Give "
            "array.filled(value) instead."
        )
    if isinstance(feed, np.ndarray | DeviceArray):
        return feed
    if hasattr(feed, "__dlpack_device__"):
        return _from_dlpack(feed, spec)
    if hasattr(feed, "__cuda_array_interface__"):
        return _from_cuda_array(feed, spec)
    raise FrameError(
        f"input '{spec.name}': got {type(feed).__name__}, expected a numpy array {spec} "
        "(or an object with __dlpack__ or __cuda_array_interface__). Try numpy.asarray(it)."
    )


def _from_cuda_array(feed: Any, spec: TensorSpec) -> DeviceArray:
    interface: Mapping[str, Any] = feed.__cuda_array_interface__
    version = interface.get("version", 0)
    if version < 2:
        raise FrameError(
            f"input '{spec.name}': its __cuda_array_interface__ has version {version}, expected 2 "
            "or 3. Update the library that made it, or give it by DLPack."
        )
    if interface.get("mask") is not None:
        raise FrameError(
            f"input '{spec.name}': got a masked array, and a model has no use for the mask. Fill "
            "it, and give an array without one."
        )
    # Version 2 knows no stream; its libraries work on the legacy default stream unless told not to.
    stream = interface.get("stream") if version >= 3 else _LEGACY_STREAM
    if stream == 0:
        raise FrameError(
            f"input '{spec.name}': __cuda_array_interface__ says stream 0, which the protocol "
            "leaves undefined. Give 1 (legacy default), 2 (per thread), or the stream's handle."
        )
    dtype = np.dtype(interface["typestr"])
    shape = tuple(int(extent) for extent in interface["shape"])
    strides = interface.get("strides")
    if strides is not None and not _is_contiguous(shape, strides, dtype.itemsize):
        raise FrameError(
            f"input '{spec.name}': its elements have gaps or another order (strides "
            f"{tuple(strides)}). Make it contiguous first."
        )
    return DeviceArray(
        int(interface["data"][0]),
        dtype,
        shape,
        stream,
        feed,
        is_written_on_stream=version >= 3,
    )


def _from_dlpack(feed: Any, spec: TensorSpec) -> Array | DeviceArray:
    kind, ordinal = feed.__dlpack_device__()
    if int(kind) not in (_CPU, _CUDA_HOST, _CUDA, _CUDA_MANAGED):
        raise FrameError(
            f"input '{spec.name}': its memory is on a device of DLPack kind {int(kind)}; expected "
            "CPU or CUDA memory"
        )
    try:
        if int(kind) in (_CPU, _CUDA_HOST):
            return np.from_dlpack(feed)
        # The producer orders its work before ours on the stream that it is given.
        capsule = feed.__dlpack__(stream=_LEGACY_STREAM)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        advice = "Give tensor.detach()." if "grad" in str(error) else "Give a plain copy of it."
        raise FrameError(
            f"input '{spec.name}': {type(feed).__name__} does not give its memory away: {error}. "
            f"{advice}"
        ) from error
    return _Managed(capsule).array(spec, int(ordinal))


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


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

    def array(self, spec: TensorSpec, ordinal: int) -> DeviceArray:
        tensor = _Tensor.from_address(_pointer_of(self.capsule, b"dltensor"))
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
            if not _is_contiguous(shape, strides, dtype.itemsize):
                raise FrameError(
                    f"input '{spec.name}': its elements have gaps or another order (strides "
                    f"{strides}). Make it contiguous first."
                )
        address = int(tensor.data or 0) + int(tensor.byte_offset)
        # On which stream the producer writes next, DLPack does not say.
        return DeviceArray(
            address,
            dtype,
            shape,
            _LEGACY_STREAM,
            self,
            ordinal=ordinal,
            is_written_on_stream=False,
        )


def _is_contiguous(shape: Sequence[int], strides: Sequence[int], item_bytes: int) -> bool:
    """Whether elements lie in C order without gaps; the stride of a single one says nothing."""
    step = item_bytes
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True
