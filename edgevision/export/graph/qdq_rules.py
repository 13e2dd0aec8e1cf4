"""What TensorRT would refuse or misread in a graph with Q/DQ, found before any builder sees it.

Sources: NVIDIA's "Working with quantized types", and builds with TensorRT-RTX 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.export.graph.observe import constants

_REFUSED_OPS = {
    "QLinearConv": "QLinear ops have no TensorRT layer",
    "QLinearMatMul": "QLinear ops have no TensorRT layer",
    "ConvInteger": "integer ops have no TensorRT layer",
    "MatMulInteger": "integer ops have no TensorRT layer",
    "DynamicQuantizeLinear": "scales must be constants",
}
_CONSTANT = "make the scale a constant, in torch a buffer"
_INT8 = "quantise to int8, in torch by quant_min=-128, quant_max=127"
_SYMMETRIC = "quantise symmetrically: a scale of the largest magnitude / 127, zero point 0"
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at a node, by which rule, how to mend it, and whether it stops the build.

    `severity` is "error", "warning" (it builds, and may not do what is meant) or "note".
    """

    node: str
    rule: str
    message: str
    remedy: str
    severity: str = "error"


def lint_qdq(model: onnx.ModelProto) -> list[Finding]:
    """Return everything in `model` that breaks TensorRT's rules for Q/DQ; empty is good."""
    graph = _Graph(model.graph)
    findings: list[Finding] = []
    for node in model.graph.node:
        if node.op_type in _REFUSED_OPS:
            remedy = "use QuantizeLinear/Dequantize"
            findings.append(_finding(node, "op", _REFUSED_OPS[node.op_type], remedy))
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            findings += _check_pair(node, graph)
    return findings


class _Graph:
    """What is stored in a graph, and which nodes make and take its tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = {i.name: i for i in graph.initializer} | constants(graph)
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            self.producers |= dict.fromkeys(node.output, node)
            for i, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, i))


def _check_pair(node: onnx.NodeProto, graph: _Graph) -> Iterator[Finding]:
    scale = graph.stored.get(node.input[1])
    if scale is None:
        yield _finding(node, "scale", "its scale is computed", _CONSTANT)
        return
    scales = numpy_helper.to_array(scale).astype(np.float64)
    if not np.all(np.isfinite(scales) & (scales > 0)):
        yield _finding(node, "scale", "a scale is not positive", "calibrate again")
    kind = _quantized_type(node, graph.stored)
    if kind == TensorProto.INT32:
        yield _finding(node, "bias", "an int32 bias goes through it", "leave the bias float")
        return
    if kind not in (None, TensorProto.INT8):
        name = TensorProto.DataType.Name(kind)
        yield _finding(node, "type", f"it quantises to {name}", _INT8)
    if len(node.input) > 2 and node.input[2]:
        zero = graph.stored.get(node.input[2])
        if zero is None or np.any(numpy_helper.to_array(zero)):
            yield _finding(node, "zero point", "its zero point is not 0", _SYMMETRIC)
    if scales.size > 1:
        yield from _check_axis(node, graph)


def _check_axis(node: onnx.NodeProto, graph: _Graph) -> Iterator[Finding]:
    """Per-channel scales are only for weights, along the output channels."""
    source = node.input[0]
    if node.op_type == "DequantizeLinear" and source not in graph.stored:
        source = graph.producers[source].input[0] if source in graph.producers else source
    if source not in graph.stored:
        yield _finding(
            node, "axis", "an activation has a scale per channel", "use one scale for it"
        )
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    rank = len(graph.stored[source].dims)
    for layer, position in graph.consumers.get(node.output[0], []):
        if layer.op_type in _LAYERS and position == 1:
            wanted = output_axis(layer, rank)
            if axis % rank != wanted:
                message = f"scales run along axis {axis} of {layer.op_type}'s weights"
                remedy = f"scale along axis {wanted}, the output channels"
                yield _finding(node, "axis", message, remedy)


def output_axis(layer: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a layer's output channels in its weights."""
    if layer.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in layer.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(layer.op_type, rank - 1)


def _quantized_type(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> int | None:
    """Return the integer type on the quantised side; None where the graph does not say."""
    if node.op_type == "DequantizeLinear" and node.input[0] in stored:
        return int(stored[node.input[0]].data_type)
    if len(node.input) > 2 and node.input[2] in stored:
        return int(stored[node.input[2]].data_type)
    if node.op_type == "QuantizeLinear":
        for attribute in node.attribute:
            if attribute.name == "output_dtype" and attribute.i:
                return int(helper.get_attribute_value(attribute))
        return int(TensorProto.UINT8)
    return None


def _finding(node: onnx.NodeProto, rule: str, message: str, remedy: str) -> Finding:
    return Finding(node.name or node.output[0], rule, message, remedy)
