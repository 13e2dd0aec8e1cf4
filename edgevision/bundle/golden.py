"""The bytes of `golden.npz`: arrays by name, uncompressed, the same for the same arrays.

Members are stored, never deflated, so that none can be larger than the file; the header of each is
held against what the manifest says before an array is made of it.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from edgevision.bundle.tensors import Array, TensorSpec
from edgevision.errors import BundleFormatError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAGIC = b"\x93NUMPY\x01\x00"
# numpy's own parser evaluates the header as Python; only what numpy itself writes is taken here.
_HEADER = re.compile(
    rb"\{'descr': '([|<][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,10}, ?)*\d{0,10})\), \} *\n"
)
_ZIP_ERRORS = (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OSError)


def encode(arrays: Mapping[str, Array]) -> bytes:
    """Return the file that holds `arrays`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
            )
            file.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getbuffer())
    return packed.getvalue()


def decode(data: bytes, expected: Mapping[str, TensorSpec], wanted: str) -> dict[str, Array]:
    """Return the arrays of `data` whose name starts with `wanted`.

    Args:
        data: what `encode` gave, or what an attacker made of it.
        expected: what each array holds in all; an array has one more axis in front, the samples.
        wanted: prefix of the names to read.

    Raises:
        BundleFormatError: it is not what `expected` says.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = {info.filename: info for info in file.infolist()}
            if sorted(info.filename for info in file.infolist()) != sorted(
                f"{name}.npy" for name in expected
            ):
                raise BundleFormatError(
                    f"golden.npz holds {_few(members)}; the stages need {_few(expected)}"
                )
            arrays = {}
            for name, spec in expected.items():
                if name.startswith(wanted):
                    info = members[f"{name}.npy"]
                    if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                        raise BundleFormatError(f"golden.npz: '{name}' is compressed")
                    arrays[name] = _array(file.read(info), name, spec)
    except _ZIP_ERRORS as error:
        raise BundleFormatError(f"golden.npz cannot be read: {str(error)[:200]!r}") from error
    return arrays


def _few(names: Mapping[str, object]) -> str:
    shown = ", ".join(repr(name[:80]) for name in sorted(names)[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "nothing"


def _array(member: bytes, name: str, spec: TensorSpec) -> Array:
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(member[len(_MAGIC) : start], "little")
    header = _HEADER.fullmatch(member, start, end)
    if not member.startswith(_MAGIC) or header is None:
        raise BundleFormatError(f"golden.npz: '{name}' is not a plain array; write it again")
    dtype = spec.dtype.numpy
    shape = tuple(int(extent) for extent in re.findall(rb"\d+", header[2]))
    size_bytes = len(member) - end
    fits = header[1].decode() == dtype.str and len(shape) > 0 and spec.accepts(shape[1:])
    if not fits or 0 in shape or math.prod(shape) * dtype.itemsize != size_bytes:
        raise BundleFormatError(
            f"golden.npz: '{name}' is {header[1].decode()}{list(shape)} in {size_bytes} bytes; "
            f"expected samples of {spec}"
        )
    return np.frombuffer(member, dtype, offset=end).reshape(shape).copy()
