"""INT8 graphs with a float16 rest, as every ONNX Runtime computes them by the standard.

QuantizeLinear of float16 rounds to the nearest integer. ONNX Runtime 1.23, the last for Python
3.10, truncates: half of all numbers come out one lower, and a right graph fails its parity.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.export.graph.capture import serialized
from edgevision.runtime.session import Session


def by_the_standard(graph: bytes) -> bytes:
    """Return what this machine's ONNX Runtime computes `graph` right from: itself, if it rounds."""
    if not _truncates():
        return graph
    model = onnx.load_from_string(graph)
    quantize_in_float32(model.graph)
    return serialized(model)


def quantize_in_float32(graph: onnx.GraphProto) -> None:
    """Divide and round in float32 at each QuantizeLinear, in place, in bodies of loops, too."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                quantize_in_float32(attribute.g)
        if node.op_type == "QuantizeLinear":
            for index in (0, 1):
                name = f"{node.output[0]}_float32_{index}"
                cast = helper.make_node("Cast", [node.input[index]], [name], to=TensorProto.FLOAT)
                nodes.append(cast)
                node.input[index] = name
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


@functools.cache
def _truncates() -> bool:
    values, scale = np.array([0.9, -0.9], np.float16), np.array(1, np.float16)
    probe = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, values.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, values.shape)],
        [numpy_helper.from_array(scale, "scale")],
    )
    model = helper.make_model(probe, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with Session.open(serialized(model), flavour=ORT, profiles={}) as session:
        return int(session.run({"x": values})["y"][0]) != 1
