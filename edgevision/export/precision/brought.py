"""A graph that brings its own Q/DQ, as training with fake quantisation leaves it: taken as INT8.

Nothing is calibrated or placed, and every scale stays. Weights that the graph rounds at each run
are stored in int8, as ours are: a float16 rest would round them another way.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.graph.observe import typed
from edgevision.export.graph.subgraphs import names_read, nested, without_unread
from edgevision.export.precision.int8 import QuantizedModel
from edgevision.export.precision.placement import QUANTIZED_OPS
from edgevision.export.precision.quantizer import refuse_unsupported

_MIN_INT8, _MAX_INT8 = -128, 127


def taken_as_int8(model: onnx.ModelProto) -> QuantizedModel:
    """Return a graph that brings its own Q/DQ, its layers as they are.

    Raises:
        ExportError: TensorRT would refuse it, or no layer in it computes in INT8.
    """
    graph = typed(model)
    refuse_unsupported(graph)
    int8, wide = {}, {}
    for inner in nested(graph.graph):
        scaled = {o for n in inner.node if n.op_type == "DequantizeLinear" for o in n.output}
        for node in inner.node:
            if node.op_type in QUANTIZED_OPS and set(node.input[:2]) <= scaled:
                int8[node.name] = "scales as the model brings them"
            elif node.op_type in QUANTIZED_OPS:
                wide[node.name] = "the model brings no Q/DQ for it"
    if not int8:
        raise ExportError(
            "the model brings Q/DQ, but around no layer: no Conv, ConvTranspose, Gemm or MatMul "
            "has both its input and its weights from a DequantizeLinear. Quantise both, as "
            "edgevision.export.fake_quantize does, or leave Q/DQ out and give --calibration DIR "
            "(calibration=)."
        )
    return QuantizedModel(graph, None, int8, wide)


def store_int8(model: onnx.ModelProto) -> None:
    """Store the weights that a graph rounds to int8 as int8, in place."""
    graph = model.graph
    stored = {i.name: i for i in graph.initializer}
    kept = []
    for node in graph.node:
        if levels := _levels(node, stored):
            stored[levels.name] = levels
            graph.initializer.append(levels)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(_turned(kept, stored, graph))
    without_unread(model)


def _levels(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    """Return what a QuantizeLinear makes of stored weights; None for any other node."""
    if node.op_type != "QuantizeLinear" or len(node.input) < 3:
        return None
    weights, scale, zero = (stored.get(name) for name in node.input)
    if not (weights and scale and zero) or zero.data_type != TensorProto.INT8:
        return None
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    values, scales, zeros = (numpy_helper.to_array(t) for t in (weights, scale, zero))
    if given.get("block_size") or zeros.any() or not np.all(scales > 0):
        return None
    shape = [1] * values.ndim
    if scales.ndim:
        shape[given.get("axis", 1)] = -1
    levels = np.rint(values / scales.reshape(shape)).clip(_MIN_INT8, _MAX_INT8)
    return numpy_helper.from_array(levels.astype(np.int8), node.output[0])


def _turned(
    nodes: list[onnx.NodeProto], stored: dict[str, onnx.TensorProto], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """Turn stored int8 weights themselves, where a Transpose stands between them and a layer."""
    made = {n.output[0]: n for n in nodes if n.op_type == "DequantizeLinear"}
    found = []
    for node in nodes:
        pair = made.get(node.input[0]) if node.op_type == "Transpose" else None
        if pair is None or pair.input[0] not in stored:
            found.append(node)
            continue
        values = numpy_helper.to_array(stored[pair.input[0]])
        order = [*next((a.ints for a in node.attribute), range(values.ndim)[::-1])]
        axis = next((a.i for a in pair.attribute if a.name == "axis"), 1) % values.ndim
        name = f"{node.output[0]}_int8"
        graph.initializer.append(numpy_helper.from_array(values.transpose(order).copy(), name))
        turned = helper.make_node(
            "DequantizeLinear", [name, *pair.input[1:]], node.output, node.name,
            axis=order.index(axis),
        )  # fmt: skip
        found.append(turned)
    read = names_read(found) | {value.name for value in graph.output}
    return [n for n in found if n.op_type != "DequantizeLinear" or n.output[0] in read]
