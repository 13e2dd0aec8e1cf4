"""What flows through a graph: any of its tensors on real feeds, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.bundle.tensors import Array, ShapeProfile
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.runtime.session import Session

Profiles = dict[str, ShapeProfile]

_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
_IR_VERSION = 9
"""Opset 20's; before 4, stored values had to be inputs as well."""


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that is ready to be rewritten.

    Its value_info has the type of every tensor, its nodes have names, none is a Constant, and
    stored values are no inputs.

    Raises:
        ExportError: the graph has subgraphs other than loops, or its types do not fit together.
    """
    for node in model.graph.node:
        if node.op_type != "Loop" and any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for a in node.attribute
        ):
            raise ExportError(
                f"node '{node.name}' ({node.op_type}) holds a subgraph; FP16 and INT8 take flat "
                "graphs and loops. Write it without branches, or build FP32."
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, _IR_VERSION)
    _constants_to_initializers(copy.graph)
    _drop_stored_inputs(copy.graph)
    name_nodes(copy.graph)
    del copy.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    except Exception as error:  # onnx raises InferenceError, ValueError and others
        raise ExportError(f"the graph's types do not fit together: {error}") from error


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators in a model; 0 where it has none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the ONNX element type of every tensor of a typed model."""
    graph = model.graph
    types = {i.name: i.data_type for i in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """List the float32 tensors that nodes compute, in order."""
    types = element_types(model)
    return [
        name
        for node in model.graph.node
        for name in node.output
        if name and types.get(name) == TensorProto.FLOAT
    ]


def largest_magnitudes(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feeds], profiles: Profiles
) -> dict[str, float]:
    """Return the largest |x| of each tensor over all feeds; inf where one is not finite."""
    if not tensors:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    infinity = numpy_helper.from_array(np.array(np.inf, np.float32), "edgevision_inf")
    probe.graph.initializer.append(infinity)
    for i, name in enumerate(tensors):
        size, nan, seen, top = (f"edgevision_{part}{i}" for part in ("abs", "nan", "seen", "max"))
        probe.graph.node.extend(
            [
                helper.make_node("Abs", [name], [size]),
                # ONNX Runtime's ReduceMax passes over NaN.
                helper.make_node("IsNaN", [name], [nan]),
                helper.make_node("Where", [nan, infinity.name, size], [seen]),
                helper.make_node("ReduceMax", [seen], [top], keepdims=0),
            ]
        )
        probe.graph.output.append(helper.make_tensor_value_info(top, TensorProto.FLOAT, []))
    largest = np.zeros(len(tensors))
    with Session.open(serialized(probe), flavour=ORT, profiles=profiles) as session:
        for feed in feeds:
            found = np.array([float(value) for value in session.run(feed).values()])
            largest = np.maximum(largest, np.where(np.isfinite(found), found, np.inf))
    return dict(zip(tensors, largest.tolist(), strict=True))


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feeds], profiles: Profiles
) -> Iterator[dict[str, Array]]:
    """Give the values of `tensors` for each feed, one feed in memory at a time.

    They are lent: the next feed's values lie in the same memory.
    """
    if not tensors:
        yield from ({} for _ in feeds)
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    shapes = {v.name: v for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    given = {value.name for value in model.graph.input}
    del probe.graph.output[:]
    read: dict[str, str] = {}
    for i, name in enumerate(dict.fromkeys(tensors)):
        kind = shapes[name].type.tensor_type
        value = onnx.ValueInfoProto()
        value.CopyFrom(shapes[name])
        read[name] = name
        if not kind.HasField("shape"):
            # Of what comes out of a loop not even the number of axes may be known.
            seen = read[name] = f"edgevision_see{i}"
            probe.graph.node.extend(
                [
                    helper.make_node("Shape", [name], [f"{seen}_shape"]),
                    helper.make_node("Reshape", [name, "edgevision_flat"], [seen]),
                ]
            )
            value = helper.make_tensor_value_info(seen, kind.elem_type, ["n"])
            probe.graph.output.append(
                helper.make_tensor_value_info(f"{seen}_shape", TensorProto.INT64, ["r"])
            )
        elif name in given:  # an input cannot be an output too
            value.name = read[name] = f"edgevision_see{i}"
            probe.graph.node.append(helper.make_node("Identity", [name], [value.name]))
        probe.graph.output.append(value)
    probe.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "edgevision_flat"))
    flat = {name for name in read if not shapes[name].type.tensor_type.HasField("shape")}
    with Session.open(serialized(probe), flavour=ORT, profiles=profiles) as session:
        for feed in feeds:
            with session.run_view(feed) as view:
                yield {
                    name: view[seen].reshape(view[f"{seen}_shape"]) if name in flat else view[seen]
                    for name, seen in read.items()
                }


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own; files from elsewhere often do not."""
    taken = {node.name for node in graph.node}
    seen = {""}
    for i, node in enumerate(graph.node):
        if node.name in seen:
            node.name = f"{node.op_type}_{i}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
        seen.add(node.name)


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return what Constant nodes hold, by output name; strings and sparse values are left out."""
    found = {}
    for node in graph.node:
        if node.op_type != "Constant":
            continue
        (held,) = node.attribute
        name = node.output[0]
        if held.name == "value":
            found[name] = numpy_helper.from_array(numpy_helper.to_array(held.t), name)
        elif dtype := _CONSTANT_DTYPES.get(held.name):
            value = np.array(helper.get_attribute_value(held), dtype)
            found[name] = numpy_helper.from_array(value, name)
    return found


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    found = constants(graph)
    kept = [n for n in graph.node if n.op_type != "Constant" or n.output[0] not in found]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(found.values())


def _drop_stored_inputs(graph: onnx.GraphProto) -> None:
    stored = {initializer.name for initializer in graph.initializer}
    kept = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(kept)
