"""What a TensorRT's parser makes of a graph, as a graph that ONNX Runtime can run.

Read in onnx-tensorrt, branch 10.1-GA (96e7811): onnxOpImporters.cpp, and importerUtils.cpp for
pooling, reductions and scatters. Of later parsers no source was at hand: they are taken to read as
10.1 does, which can blame one of them wrongly. `NOT_MODELLED` lists what such a run does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgevision.export.graph.observe import opset_version

SOURCE = "onnx-tensorrt 10.1-GA (96e7811)"
NOT_MODELLED = (
    "kernels that the builder chooses, and layers that it merges",
    "rounding to float16 between the steps of an operator: only what becomes infinity or 0 there",
    "the type in which a layer adds up: products, convolutions and means are as ONNX Runtime's",
    "INT8 kernels, which may round ties otherwise",
    "plugins, and operators that the parser refuses: these are the rules' and the builder's",
    "operators in branches of an If or in a Scan, and in a Loop where no types are stored",
    "parsers newer than 10.1",
)
# Half of the step above the largest number, and half of the smallest: what rounds to either.
_HALF_OVERFLOW = 65520.0
_HALF_UNDERFLOW = 2.0**-25


@dataclass(frozen=True, slots=True)
class Difference:
    """One node that the parser reads as something else, how, and what to write instead."""

    node: str
    op_type: str
    message: str

    @property
    def remedy(self) -> str:
        """What all versions read alike."""
        return REMEDIES.get(self.op_type, _WIDE)


@dataclass(slots=True)
class _Reader:
    """The nodes that one node becomes; `is_half` is whether they compute in float16."""

    node: onnx.NodeProto
    opset: int
    is_half: bool
    stored: Mapping[str, onnx.TensorProto]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: list[onnx.TensorProto] = field(default_factory=list)

    def attribute(self, name: str, default: Any = None) -> Any:
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def without(self, *names: str, **changed: object) -> None:
        """Read the node without some attributes, and with others changed."""
        copy = onnx.NodeProto()
        copy.CopyFrom(self.node)
        left = [a for a in self.node.attribute if a.name not in {*names, *changed}]
        del copy.attribute[:]
        copy.attribute.extend(left)
        copy.attribute.extend(helper.make_attribute(k, v) for k, v in changed.items())
        self.nodes.append(copy)

    def constant(self, values: object, dtype: type[np.generic]) -> str:
        name = f"{self.node.output[0]}/read_constant{len(self.made)}"
        self.made.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def apply(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add one operator as ONNX has it; return its output."""
        name = f"{self.node.output[0]}/read{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def step(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add one layer of the parser's, whose output has the operator's own type."""
        found = self.apply(op_type, *inputs, **attributes)
        if not self.is_half:
            return found
        size = self.apply("Abs", found)
        is_lost = self.apply("Less", size, self.constant(_HALF_UNDERFLOW, np.float32))
        is_over = self.apply("GreaterOrEqual", size, self.constant(_HALF_OVERFLOW, np.float32))
        endless = self.apply("Mul", found, self.constant(np.inf, np.float32))
        kept = self.apply("Where", is_lost, self.constant(0, np.float32), found)
        return self.apply("Where", is_over, endless, kept)

    def wide(self, name: str) -> str:
        return self.apply("Cast", name, to=TensorProto.FLOAT) if self.is_half else name

    def finish(self, name: str) -> None:
        """Give the node's output: `name` in the node's own type."""
        kind = TensorProto.FLOAT16 if self.is_half else TensorProto.FLOAT
        last = helper.make_node("Cast", [name], [self.node.output[0]], f"{name}_out", to=kind)
        self.nodes.append(last)

    def axes(self) -> list[int] | None:
        """Return what a reduction reduces; None for every axis."""
        found = self.attribute("axes")
        if found is None and len(self.node.input) > 1 and self.node.input[1]:
            held = self.stored.get(self.node.input[1])
            if held is None:
                raise _Unread
            found = numpy_helper.to_array(held).tolist()
        return [int(axis) for axis in found] if isinstance(found, list) and found else None

    def sum_over(self, name: str, axes: list[int] | None, *, keepdims: int | None = None) -> str:
        keep = self.attribute("keepdims", 1) if keepdims is None else keepdims
        if axes is None:
            return self.step("ReduceSum", name, keepdims=keep)
        if self.opset < 13:
            return self.step("ReduceSum", name, axes=axes, keepdims=keep)
        return self.step("ReduceSum", name, self.constant(axes, np.int64), keepdims=keep)


class _Unread(Exception):  # noqa: N818
    """This node is left as it is: nothing is known of how it is read."""


def read_as_parsed(
    model: onnx.ModelProto, *, only: Collection[str] | None = None
) -> tuple[onnx.ModelProto, tuple[Difference, ...]]:
    """Return `model` as the parser reads it, and where that is not what ONNX says.

    Args:
        model: a graph whose value_info holds the types, as shape inference leaves it; unchanged.
        only: the operators that are read so, the rest as ONNX has it; by default all.
    """
    rules = {op: rule for op, rule in _RULES.items() if only is None or op in only}
    read = onnx.ModelProto()
    read.CopyFrom(model)
    opset = opset_version(model)
    found: list[Difference] = []
    _read_graph(read.graph, opset, rules, {}, {}, found)
    return read, tuple(found)


def _read_graph(
    graph: onnx.GraphProto,
    opset: int,
    rules: Mapping[str, Callable[[_Reader], str | None]],
    stored: Mapping[str, onnx.TensorProto],
    types: Mapping[str, int],
    found: list[Difference],
) -> None:
    stored = {**stored, **{i.name: i for i in graph.initializer}}
    types = {**types, **{name: tensor.data_type for name, tensor in stored.items()}}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    nodes: list[onnx.NodeProto] = []
    before = len(found)
    for node in graph.node:
        if node.op_type == "Loop":
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    _read_graph(attribute.g, opset, rules, stored, types, found)
        is_half = bool(node.input) and types.get(node.input[0]) == TensorProto.FLOAT16
        reader = _Reader(node, opset, is_half, stored)
        message = None
        if rule := rules.get(node.op_type):
            try:
                message = rule(reader)
            except _Unread:
                message = None
        if message is None:
            nodes.append(node)
            continue
        nodes += reader.nodes
        graph.initializer.extend(reader.made)
        found.append(Difference(node.name or node.output[0], node.op_type, message))
    if len(found) > before:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(copies)


def _grid_sample(reader: _Reader) -> str | None:
    mode = reader.attribute("mode", "bilinear")
    if mode in ("bilinear", "bicubic", "nearest"):
        return None
    reader.without(mode="nearest")
    return f"it takes mode '{mode}' for nearest"


def _resize(reader: _Reader) -> str | None:
    mode = reader.attribute("mode", "nearest")
    antialias = reader.attribute("antialias", 0)
    policy = reader.attribute("keep_aspect_ratio_policy", "stretch")
    if mode in ("nearest", "linear", "cubic") and not antialias and policy == "stretch":
        return None
    known = mode if mode in ("nearest", "linear", "cubic") else "nearest"
    reader.without("antialias", "keep_aspect_ratio_policy", mode=known)
    return "it reads neither antialias nor keep_aspect_ratio_policy"


def _dilated_pool(reader: _Reader) -> str | None:
    dilations = reader.attribute("dilations")
    if not isinstance(dilations, list) or all(step == 1 for step in dilations):
        return None
    reader.without("dilations")
    return f"it passes over dilations {dilations}"


def _lp_pool(reader: _Reader) -> str | None:
    order = reader.attribute("p", 2)
    if not reader.is_half or order not in (1, 2):
        return _dilated_pool(reader)
    wide = reader.wide(reader.node.input[0])
    terms = reader.step("Abs", wide) if order == 1 else reader.step("Mul", wide, wide)
    kernel = reader.attribute("kernel_shape")
    window = {
        name: value
        for name in ("auto_pad", "ceil_mode", "pads", "strides")
        if (value := reader.attribute(name)) is not None
    }
    mean = reader.step("AveragePool", terms, kernel_shape=kernel, count_include_pad=1, **window)
    size = float(np.prod(kernel)) if isinstance(kernel, list) else 1.0
    summed = reader.step("Mul", mean, reader.constant(size, np.float32))
    reader.finish(summed if order == 1 else reader.step("Sqrt", summed))
    return "it is a mean of float16 terms times their number, and passes over dilations"


def _forgetful(reader: _Reader) -> str | None:
    if not reader.attribute("input_forget", 0):
        return None
    reader.without("input_forget")
    return "it passes over input_forget"


def _mean(reader: _Reader) -> str | None:
    """Multiply by what 1/n of float32 holds in its first two bytes: 0 for two inputs."""
    if not reader.is_half:
        return None
    share = np.array(1 / len(reader.node.input), "<f4").tobytes()[:2]
    total = reader.wide(reader.node.input[0])
    for name in reader.node.input[1:]:
        total = reader.step("Add", total, reader.wide(name))
    factor = reader.constant(np.frombuffer(share, "<f2")[0], np.float32)
    reader.finish(reader.step("Mul", total, factor))
    return "it writes 1/n as float32 where float16 is read"


def _log_sum_exp(reader: _Reader) -> str:
    # The helper that sums is given the exponentials alone: axes that are an input are lost.
    axes = reader.attribute("axes")
    powers = reader.step("Exp", reader.wide(reader.node.input[0]))
    summed = reader.sum_over(powers, axes if isinstance(axes, list) else None)
    reader.finish(reader.step("Log", summed))
    lost = " and reduces every axis" if axes is None and len(reader.node.input) > 1 else ""
    return f"it adds up exponentials as they are{lost}"


def _log_sum(reader: _Reader) -> str | None:
    if not reader.is_half:
        return None
    summed = reader.sum_over(reader.wide(reader.node.input[0]), reader.axes())
    reader.finish(reader.step("Log", summed))
    return "its sum is float16"


def _sum_square(reader: _Reader) -> str | None:
    if not reader.is_half:
        return None
    wide = reader.wide(reader.node.input[0])
    reader.finish(reader.sum_over(reader.step("Mul", wide, wide), reader.axes()))
    return "its squares are float16"


def _l2(reader: _Reader) -> str | None:
    if not reader.is_half:
        return None
    wide = reader.wide(reader.node.input[0])
    summed = reader.sum_over(reader.step("Mul", wide, wide), reader.axes())
    reader.finish(reader.step("Sqrt", summed))
    return "its squares and their sum are float16"


def _lp_normalization(reader: _Reader) -> str:
    order, axis = reader.attribute("p", 2), reader.attribute("axis", -1)
    if order not in (1, 2) or not isinstance(axis, int):
        raise _Unread
    wide = reader.wide(reader.node.input[0])
    terms = reader.step("Abs", wide) if order == 1 else reader.step("Mul", wide, wide)
    norm = reader.sum_over(terms, [axis], keepdims=1)
    norm = norm if order == 1 else reader.step("Sqrt", norm)
    # A norm of 0 becomes 1, so that nothing is divided by 0.
    is_zero = reader.apply("Equal", norm, reader.constant(0, np.float32))
    norm = reader.apply("Where", is_zero, reader.constant(1, np.float32), norm)
    reader.finish(reader.step("Div", wide, norm))
    return "it is spelled out in its input's type"


def _global_lp_pool(reader: _Reader) -> str:
    order = reader.attribute("p", 2)
    if not isinstance(order, int):
        raise _Unread
    wide = reader.wide(reader.node.input[0])
    powers = reader.step("Pow", wide, reader.constant(order, np.float32))
    # GlobalAveragePool knows which axes are spatial; its mean times their size is the sum.
    shape = reader.apply("Shape", wide, start=2)
    size = reader.apply("Cast", reader.apply("ReduceProd", shape), to=TensorProto.FLOAT)
    mean = reader.apply("GlobalAveragePool", powers)
    summed = reader.step("Mul", mean, size)
    reader.finish(reader.step("Pow", summed, reader.constant(1 / order, np.float32)))
    return "it raises what it is given, not its magnitude, in its input's type"


def _mean_variance(reader: _Reader) -> str:
    axes = reader.attribute("axes", [0, 2, 3])
    wide = reader.wide(reader.node.input[0])

    def mean(name: str) -> str:
        if reader.opset < 18:
            return reader.step("ReduceMean", name, axes=axes)
        return reader.step("ReduceMean", name, reader.constant(axes, np.int64))

    rest = reader.step("Sub", wide, mean(wide))
    spread = reader.step("Sqrt", mean(reader.step("Mul", rest, rest)))
    # Outside of the root, where ONNX has none or has it inside.
    spread = reader.step("Add", spread, reader.constant(1e-9, np.float32))
    reader.finish(reader.step("Div", rest, spread))
    return "it is spelled out in its input's type, its epsilon outside of the root"


def _log_softmax(reader: _Reader) -> str:
    wide = reader.wide(reader.node.input[0])
    shares = reader.step("Softmax", wide, axis=reader.attribute("axis", -1))
    reader.finish(reader.step("Log", shares))
    return "it takes the logarithm of a share that may have become 0"


def _batch_norm(reader: _Reader) -> str | None:
    """Fold in the type of the weights; an epsilon of 1e-8 is 0 in float16."""
    stored = [reader.stored.get(name) for name in reader.node.input[1:5]]
    held = [numpy_helper.to_array(tensor) for tensor in stored if tensor is not None]
    if not reader.is_half or len(held) != 4 or any(a.dtype != np.float16 for a in held):
        return None
    scale, bias, mean, variance = held
    epsilon = np.float16(reader.attribute("epsilon", 1e-5))
    with np.errstate(all="ignore"):
        divisor = np.sqrt((variance + epsilon).astype(np.float32))
        factor = (scale / divisor).astype(np.float16)
        shift = (bias - mean * factor).astype(np.float16)
    zeros, ones = np.zeros_like(scale), np.ones_like(scale)
    names = [reader.constant(a, np.float16) for a in (factor, shift, zeros, ones)]
    wide = [reader.apply("Cast", n, to=TensorProto.FLOAT) for n in (reader.node.input[0], *names)]
    # Through the operator itself, which knows the axis; 1e-12 is nothing beside a variance of 1.
    reader.finish(reader.step("BatchNormalization", *wide, epsilon=1e-12))
    return "it is folded in float16, its epsilon as well"


_RULES: Mapping[str, Callable[[_Reader], str | None]] = {
    "AveragePool": _dilated_pool,
    "BatchNormalization": _batch_norm,
    "GlobalLpPool": _global_lp_pool,
    "GridSample": _grid_sample,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "LSTM": _forgetful,
    "LpPool": _lp_pool,
    "MaxPool": _dilated_pool,
    "Mean": _mean,
    "MeanVarianceNormalization": _mean_variance,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
    "Resize": _resize,
}
_WIDE = "let it compute in float32: build with --set keep_fp32=NODE (keep_fp32=), NODE its name"
_POOL = "take the largest, or the mean, of shifted slices; `build` writes a dilated MaxPool so"
REMEDIES = {
    "AveragePool": _POOL,
    "GlobalLpPool": "take the Abs before it, and let it compute in float32",
    "GridSample": "leave the mode out where it is linear, the default of every opset; cubic has no "
    "word that opset 20 and TensorRT 10 share",
    "LSTM": "leave input_forget out, and write its gate into the weights",
    "LpPool": f"{_WIDE}; without dilations",
    "MaxPool": _POOL,
    "Mean": "write it as Add and Mul",
    "ReduceLogSumExp": f"write the largest out of it: Exp of what is left, sum, Log; or {_WIDE}",
    "Resize": "shrink with AveragePool, or by products with constant matrices",
}
