"""Inputs at the ends of what a graph takes: where an epsilon, a divisor or a rounding shows.

Photos reach neither a frame without features nor one of a single value, so that what an exporter's
pass drops for such frames passes on photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgevision.bundle.tensors import Array
from edgevision.export.adapters.adapter import Feeds

CORNERS = ("all at zero", "all at the highest value", "a mosaic of both with one hot pixel")
_MAX_CHANNELS_LAST = 4


def corner_feeds(model: onnx.ModelProto, samples: Sequence[Feeds]) -> dict[str, dict[str, Array]]:
    """Return feeds by what they show; none for a graph that takes neither floats nor frames.

    Numbers of a frame, and of float inputs of two axes and more, are replaced. What may be an
    index, a size or a divisor stays as the first sample has it.

    Args:
        model: the graph that is fed.
        samples: what it is fed usually; they say how high values go.
    """
    replaced = [
        name for name, array in samples[0].items() if array.ndim > 1 and _is_signal(model, name)
    ]
    found: dict[str, dict[str, Array]] = {}
    for kind in CORNERS if replaced else ():
        found[kind] = dict(samples[0])
        for name in replaced:
            found[kind][name] = _corner(kind, name, samples)
    return found


def _is_signal(model: onnx.ModelProto, name: str) -> bool:
    """Whether an input is float, or numbers that become floats at once: a camera's."""
    (given,) = (v for v in model.graph.input if v.name == name)
    kind = given.type.tensor_type.elem_type
    if kind in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return True
    readers = [node for node in model.graph.node if name in node.input]
    return kind in (TensorProto.UINT8, TensorProto.UINT16) and all(map(_widens, readers))


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        helper.get_attribute_value(a) == TensorProto.FLOAT for a in node.attribute if a.name == "to"
    )


def _corner(kind: str, name: str, samples: Sequence[Mapping[str, Array]]) -> Array:
    array = np.asarray(samples[0][name])
    # More than a camera's ten or twelve bits is not a frame of it.
    highest = max(float(np.max(s[name].astype(np.float64))) for s in samples)
    highest = 255.0 if array.dtype == np.uint8 else highest
    if kind == CORNERS[0]:
        return np.zeros_like(array)
    if kind == CORNERS[1]:
        return np.full_like(array, highest)
    is_channels_last = array.ndim > 3 and array.shape[-1] <= _MAX_CHANNELS_LAST
    first = array.ndim - (3 if is_channels_last else 2)
    rows, columns = array.shape[first : first + 2]
    y, x = np.mgrid[:rows, :columns]
    # Black with a hot pixel, white; a checkerboard, and stripes of eight.
    where = np.where(y < rows // 2, x >= columns // 2, (y + x) % 2 == 0)
    where |= (y == rows // 4) & (x == columns // 4)
    stripes = (y >= rows // 2) & (x >= columns // 2)
    where = np.where(stripes, x // 8 % 2 == 0, where)
    shape = [1] * array.ndim
    shape[first : first + 2] = rows, columns
    mosaic = np.where(where.reshape(shape), highest, 0).astype(array.dtype)
    return np.broadcast_to(mosaic, array.shape).copy()
