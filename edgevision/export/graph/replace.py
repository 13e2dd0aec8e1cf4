"""Operators that builders refuse or read otherwise, written with ones that all of them know.

TensorRT has no layer for Col2Im and DFT; its parsers pass over a pool's dilations and a resize's
antialias, lose the axes of ReduceLogSumExp where they are an input, and take Celu in float32 only.
Each is a few layers of what there is, where its sizes are known; where not, `rules` says what to
write.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir

from edgevision.bundle.flavours import ORT
from edgevision.runtime.session import Session

Array = npt.NDArray[Any]


def replace_refused(model: ir.Model) -> None:
    """Write what builders refuse with what they take, in place; the answers stay the same."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        write = _WRITTEN.get(node.op_type)
        if write is None or node.domain not in ("", "ai.onnx"):
            continue
        tape = _Tape(node)
        written = write(tape)
        if written is None:
            continue
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(
            node.graph, node, [node], tape.nodes, [node.outputs[0]], [written]
        )


class _Tape(ir.tape.Tape):
    """Nodes in the place of one, and what is known of that."""

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        self.node = node

    def add(self, op_type: str, *inputs: ir.Value | Array, **attributes: Any) -> ir.Value:
        """Add an operator; arrays become constants of the graph."""
        values = [
            x if isinstance(x, ir.Value) else self.op("Constant", [], {"value": ir.tensor(x)})
            for x in inputs
        ]
        return self.op(op_type, values, attributes)

    def number(self, name: str, default: float) -> float:
        found = self.node.attributes.get(name)
        return default if found is None else float(found.value)

    def numbers(self, name: str, default: Sequence[int]) -> list[int]:
        found = self.node.attributes.get(name)
        return list(default if found is None else found.as_ints())

    def text(self, name: str, default: str) -> str:
        found = self.node.attributes.get(name)
        return default if found is None else found.as_string()

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def stored(self, index: int) -> Array | None:
        """Return what is stored for an input."""
        value = self.input(index)
        held = None if value is None else ir.convenience.get_const_tensor(value)
        return None if held is None else held.numpy()

    def sizes(self) -> list[int] | None:
        """Return the first input's sizes; None where one is open."""
        value = self.input(0)
        if value is None or value.shape is None or not value.shape.is_static():
            return None
        return [int(size) for size in value.shape.numpy()]


def _celu(tape: _Tape) -> ir.Value | None:
    alpha = tape.number("alpha", 1.0)
    (x,) = tape.node.inputs
    if x is None or alpha <= 0:
        return None
    bent = tape.add("Elu", tape.add("Mul", x, np.array(1 / alpha, np.float32)))
    return tape.add("Mul", bent, np.array(alpha, np.float32))


def _log_sum_exp(tape: _Tape) -> ir.Value | None:
    """Take the largest out of the sum, so that nothing overflows in any type."""
    x, axes = tape.input(0), tape.stored(1)
    if x is None or x.dtype is None or axes is None or not axes.size:
        return None
    top = tape.add("ReduceMax", x, axes, keepdims=1)
    # All at minus infinity, as masks have it, stay there.
    top = tape.add("Where", tape.add("IsInf", top), np.zeros((), x.dtype.numpy()), top)
    powers = tape.add("Exp", tape.add("Sub", x, top))
    whole = tape.add("Add", tape.add("Log", tape.add("ReduceSum", powers, axes, keepdims=1)), top)
    return whole if tape.number("keepdims", 1) else tape.add("Squeeze", whole, axes)


def _dilated_pool(tape: _Tape) -> ir.Value | None:
    """Take the largest of the pictures that are shifted by the kernel's places."""
    sizes, kernel = tape.sizes(), tape.numbers("kernel_shape", ())
    rank = len(kernel)
    dilations = tape.numbers("dilations", [1] * rank)
    is_plain = tape.text("auto_pad", "NOTSET") == "NOTSET" and not tape.number("ceil_mode", 0)
    x = tape.input(0)
    if set(dilations) == {1} or len(tape.node.outputs) > 1 or not is_plain:
        return None
    if x is None or sizes is None or x.dtype != ir.DataType.FLOAT:
        return None
    strides, pads = tape.numbers("strides", [1] * rank), tape.numbers("pads", [0] * (2 * rank))
    if any(pads):
        around = np.array([0, 0, *pads[:rank], 0, 0, *pads[rank:]], np.int64)
        x = tape.add("Pad", x, around, np.array(-np.inf, np.float32))
    spans = [n + a + b for n, a, b in zip(sizes[2:], pads[:rank], pads[rank:], strict=True)]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    ends = [span - far for span, far in zip(spans, reach, strict=True)]
    axes, steps = np.arange(2, 2 + rank), np.array(strides, np.int64)
    parts = []
    for place in itertools.product(*map(range, kernel)):
        start = np.array(place, np.int64) * dilations
        parts.append(tape.add("Slice", x, start, start + ends, axes, steps))
    return tape.add("Max", *parts)


def _antialiased(tape: _Tape) -> ir.Value | None:
    """Shrink by a product with a matrix along each axis: what it makes of each pixel alone."""
    x, before, after = tape.input(0), tape.sizes(), tape.node.outputs[0].shape
    if not tape.number("antialias", 0) or before is None or after is None:
        return None
    if x is None or len(before) != 4 or not after.is_static() or "axes" in tape.node.attributes:
        return None
    attributes = {name: a.value for name, a in tape.node.attributes.items()}
    scales, sizes = tape.stored(2), tape.stored(3)
    done = x
    # Columns first: a stored factor on the right is what INT8 takes.
    for axis in (3, 2):
        if (scales is None or not scales.size) and sizes is None:
            return None
        if before[axis] == after[axis]:
            continue
        matrix = _resized_rows(before[axis], axis, attributes, scales, sizes)
        if axis == 2:
            done = tape.add("MatMul", matrix, done)
        else:
            done = tape.add("MatMul", done, np.ascontiguousarray(matrix.T))
    return tape.add("Identity", done) if done is x else done


def _resized_rows(
    length: int,
    axis: int,
    attributes: Mapping[str, Any],
    scales: Array | None,
    sizes: Array | None,
) -> Array:
    """Return float32[after, before], by which a resize multiplies one axis of `length`."""
    stored = [numpy_helper.from_array(np.zeros(0, np.float32), "roi")]
    if scales is not None and scales.size:
        along = np.array([1, 1, scales[axis], 1], np.float32)
        inputs = ["x", "roi", "by"]
    else:
        assert sizes is not None
        along = np.array([1, 1, sizes[axis], length], np.int64)
        inputs = ["x", "roi", "", "by"]
    stored.append(numpy_helper.from_array(along, "by"))
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, length, length])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, None, length])],
        stored,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(made)
    rows = np.eye(length, dtype=np.float32)[np.newaxis, np.newaxis]
    with Session.open(model.SerializeToString(), flavour=ORT) as session:
        found: Array = session.run({"x": rows})["y"][0, 0]
    return found


def _col2im(tape: _Tape) -> ir.Value | None:
    """Add up blocks by a deconvolution whose kernel has a single 1 for each place of a block."""
    x, sizes, picture, block = tape.input(0), tape.sizes(), tape.stored(1), tape.stored(2)
    if x is None or sizes is None or picture is None or block is None:
        return None
    rank, places = len(block), int(np.prod(block))
    strides, dilations = (tape.numbers(name, [1] * rank) for name in ("strides", "dilations"))
    pads = tape.numbers("pads", [0] * (2 * rank))
    reach = [d * (int(k) - 1) + 1 for d, k in zip(dilations, block, strict=True)]
    inner = [
        int(n) + a + b - far
        for n, a, b, far in zip(picture, pads[:rank], pads[rank:], reach, strict=True)
    ]
    counts = [left // step + 1 for left, step in zip(inner, strides, strict=True)]
    missing = [left % step for left, step in zip(inner, strides, strict=True)]
    channels = sizes[1] // places
    kernel = np.zeros((sizes[1], 1, *map(int, block)), np.float32)
    kernel.reshape(channels, places, places)[:, range(places), range(places)] = 1
    blocks = tape.add("Reshape", x, np.array([sizes[0], sizes[1], *counts], np.int64))
    return tape.add(
        "ConvTranspose", blocks, kernel, group=channels, strides=strides, dilations=dilations,
        pads=pads, output_padding=missing,
    )  # fmt: skip


def _fourier(tape: _Tape) -> ir.Value | None:
    """Multiply by the matrix of a transform: what it makes of each number alone."""
    x, sizes, length, axis = tape.input(0), tape.sizes(), tape.stored(1), tape.stored(2)
    is_inverse, is_onesided = tape.number("inverse", 0), tape.number("onesided", 0)
    if x is None or sizes is None or (is_inverse and is_onesided):
        return None
    if tape.input(2) is not None and axis is None:
        return None
    along = (int(axis) if axis is not None else -2) % len(sizes)
    count, parts = sizes[along], sizes[-1]
    points = count if tape.input(1) is None else int(length) if length is not None else 0
    if not points or along == len(sizes) - 1:
        return None
    kept = points // 2 + 1 if is_onesided else points
    angle = 2 * np.pi * np.outer(np.arange(min(count, points)), np.arange(kept)) / points
    wave = np.exp((1j if is_inverse else -1j) * angle) / (points if is_inverse else 1)
    turned = np.stack([wave, 1j * wave], 1)[:, :parts]
    matrix = np.zeros((count, parts, kept, 2), np.float32)
    matrix[: min(count, points)] = np.stack([turned.real, turned.imag], -1)
    order = [a for a in range(len(sizes)) if a != along and a != len(sizes) - 1]
    order += [along, len(sizes) - 1]
    rest = [sizes[a] for a in order[:-2]]
    rows = tape.add("Transpose", x, perm=order)
    flat = tape.add("Reshape", rows, np.array([*rest, count * parts], np.int64))
    product = tape.add("MatMul", flat, matrix.reshape(count * parts, kept * 2))
    waves = tape.add("Reshape", product, np.array([*rest, kept, 2], np.int64))
    return tape.add("Transpose", waves, perm=np.argsort(order).tolist())


_WRITTEN: Mapping[str, Callable[[_Tape], ir.Value | None]] = {
    "Celu": _celu,
    "Col2Im": _col2im,
    "DFT": _fourier,
    "MaxPool": _dilated_pool,
    "ReduceLogSumExp": _log_sum_exp,
    "Resize": _antialiased,
}
