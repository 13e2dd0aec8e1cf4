"""Reads ONNX files as the world has them: weights beside them, old opsets, functions, folding."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.files import read_plain
from edgevision.bundle.tensors import Profiles
from edgevision.errors import EdgeVisionError, ExportError, FileReadError
from edgevision.export.graph.capture import OPSET, anonymous, quiet
from edgevision.export.graph.observe import constants, name_nodes
from edgevision.export.graph.simplify import simplify
from edgevision.export.graph.subgraphs import nested

_MAX_ONNX_BYTES = (2 << 30) - 1
_ALIKE = ("", "ai.onnx")
_MAX_STEPS = 1 << 20
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8}
_STOPPED = re.compile(r"Name:'([^']+)'")
_BOUNDS = re.compile(r"range \[(-?\d+),\s*(-?\d+)\]")
_MAX_SHOWN = 4
_log = logging.getLogger(__name__)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Return the checked model of a file, with the weights that lie beside it.

    An open size is one without a number: -1 and 0 are none. Nodes get names of their own. bfloat16,
    which ONNX Runtime does not compute in on a CPU, becomes float32.

    Raises:
        FileReadError: the file cannot be read, or its weights lie elsewhere.
        ExportError: it is not a valid ONNX file.
    """
    try:
        data = read_plain(path, max_bytes=_MAX_ONNX_BYTES, follow_links=True)
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror}; expected an ONNX file") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        _load_external_data(model, path)
        _open_sizes(model.graph)
        model = _with_shapes(model)
        _check(model)
        _widen_bfloat16(model)
        for graph in nested(model.graph):
            name_nodes(graph)
    except EdgeVisionError:
        raise
    # Protobuf, the checker and shape inference have no error class in common.
    except Exception as error:
        raise ExportError(f"{path}: not a valid ONNX file: {_first_line(error)}") from error
    if not model.graph.node:
        raise ExportError(f"{path}: holds no node, so that it computes nothing")
    _check_weights(model.graph, path)
    _check_loops(model.graph, path)
    if both := {v.name for v in model.graph.input} & {v.name for v in model.graph.output}:
        raise ExportError(
            f"{path}: '{min(both)}' is an input and an output at once, which no builder takes. "
            "Leave it out of the outputs, or put an Identity before it."
        )
    return anonymous(model)


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give outputs without a shape the one that follows, where one does."""
    if all(map(_has_shape, model.graph.output)):
        return model
    return onnx.shape_inference.infer_shapes(model)


def _check(model: onnx.ModelProto) -> None:
    """Let ONNX's checker see all but outputs of no shape: of a branch it follows when folded."""
    if not all(map(_has_shape, model.graph.output)):
        outputs = [value for value in model.graph.output if _has_shape(value)]
        model = onnx.ModelProto.FromString(model.SerializeToString())
        del model.graph.output[:]
        model.graph.output.extend(outputs)
    onnx.checker.check_model(model, full_check=True)


def _check_weights(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse NaN, and infinity in the weights of a layer: labels of them are 0 everywhere."""
    nodes = [node for inner in nested(graph) for node in inner.node]
    of_layers = {node.input[1] for node in nodes if node.op_type in _LAYERS and node.input[1:]}
    for inner in nested(graph):
        for tensor in (*inner.initializer, *constants(inner).values()):
            values = numpy_helper.to_array(tensor)
            if values.dtype.kind != "f":
                continue
            broken = np.isinf(values) if tensor.name in of_layers else np.zeros_like(values, bool)
            broken |= np.isnan(values)
            if broken.any():
                raise ExportError(
                    f"{path}: '{tensor.name}' holds {int(broken.sum())} of {values.size} values "
                    "that are NaN or infinite. Export a checkpoint from before the training "
                    "diverged"
                )


def _check_loops(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse a loop that would not end in any time that a person waits."""
    stored = {t.name: t for inner in nested(graph) for t in inner.initializer}
    for inner in nested(graph):
        stored |= constants(inner)
    for node in (node for inner in nested(graph) for node in inner.node):
        if node.op_type == "Loop" and node.input and node.input[0] in stored:
            count = int(numpy_helper.to_array(stored[node.input[0]]).max(initial=0))
            if count > _MAX_STEPS:
                raise ExportError(
                    f"{path}: loop '{node.name}' runs {count} times, at most {_MAX_STEPS} are taken"
                )


def plain(model: onnx.ModelProto, source: object) -> onnx.ModelProto:
    """Return the same graph at our opset, its functions inlined, its constants folded.

    Raises:
        ExportError: an old graph cannot be brought to our opset.
    """
    at_opset = _at_opset(onnx.inliner.inline_local_functions(model), source)
    try:
        with quiet():
            folded = onnx_ir.from_proto(at_opset)
            simplify(folded, with_weights=True)
            done = _with_shapes(onnx_ir.to_proto(folded))
        _check(done)
    except Exception as error:  # the folder raises whatever a strange graph makes it hit
        _log.warning("%s: its constants are not folded: %s", source, _first_line(error))
        return at_opset
    return anonymous(done)


def with_own_axes(model: onnx.ModelProto, profiles: Profiles) -> onnx.ModelProto:
    """Give open axes of one name but different bounds names of their own, in place.

    TensorRT takes axes of one name for equal, ONNX Runtime does not; some exporters call all "?".
    """
    seen: dict[str, set[tuple[str, object]]] = {}
    for value in model.graph.input:
        profile = profiles.get(value.name)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param and profile is not None:
                bounds = profile.minimum[axis], profile.optimum[axis], profile.maximum[axis]
                # Two axes of one input are as a rule two sizes, whatever their bounds.
                seen.setdefault(dim.dim_param, set()).add((f"{axis}", bounds))
    shared = {name for name, uses in seen.items() if len(uses) > 1}
    if not shared:
        return model
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in shared:
                dim.dim_param = f"{value.name}_{axis}"
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in shared:
                dim.ClearField("dim_param")
    del model.graph.value_info[:]
    return model


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a graph brings its own Q/DQ: it is INT8 already, and is not calibrated again."""
    return any(n.op_type == "QuantizeLinear" for g in nested(model.graph) for n in g.node)


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Give every stored tensor, wherever it lies."""
    graphs = list(nested(model.graph))
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    bodies = [g.node for g in graphs]
    for function in model.functions:
        bodies.append(function.node)
        for node in function.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    for graph in nested(attribute.g):
                        yield from graph.initializer
                        bodies.append(graph.node)
    for nodes in bodies:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Bring weights from files beside the model into it; none may lie anywhere else."""
    folder, total = path.resolve().parent, 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = next((e.value for e in tensor.external_data if e.key == "location"), "")
        inside = PurePosixPath(place)
        file = folder / inside
        if not place or inside.is_absolute() or ".." in inside.parts or file.is_symlink():
            raise FileReadError(
                f"{path}: weights of '{tensor.name}' lie at '{place}'; only plain files beside the "
                "model are read"
            )
        if not file.resolve().is_relative_to(folder) or not file.is_file():
            raise FileReadError(f"{path}: weights of '{tensor.name}' are missing: {place}")
        if file.stat().st_size > _MAX_ONNX_BYTES:
            raise FileReadError(f"{path}: weights of '{tensor.name}': {place} is over 2 GiB")
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        total += len(tensor.raw_data)
        if total > _MAX_ONNX_BYTES:
            raise FileReadError(f"{path}: more than 2 GiB of weights")


def _open_sizes(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")


def _widen_bfloat16(model: onnx.ModelProto) -> None:
    narrow, wide = TensorProto.BFLOAT16, TensorProto.FLOAT
    for tensor in _tensors(model):
        if tensor.data_type == narrow:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in nested(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == narrow:
                value.type.tensor_type.elem_type = wide
    bodies = [*(g.node for g in nested(model.graph)), *(f.node for f in model.functions)]
    for nodes in bodies:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == narrow:
                    attribute.i = wide


def _at_opset(model: onnx.ModelProto, source: object) -> onnx.ModelProto:
    """Return the model at our opset; one that is newer and cannot be written so stays as it is."""
    opset = next((o.version for o in model.opset_import if o.domain in _ALIKE), 0)
    if opset == OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and others
        if opset > OPSET:
            return model
        raise ExportError(
            f"{source}: opset {opset} cannot be brought to {OPSET}: {_first_line(error)} Export it "
            f"again with opset {OPSET}."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:300]


def likely_ranges(model: onnx.ModelProto) -> Mapping[str, tuple[float, float]]:
    """Return what the integer inputs of known operators may hold, both ends included."""
    graph = model.graph
    shapes = {i.name: list(i.dims) for i in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [d.dim_value for d in dims]
    origin = {v.name: v.name for v in graph.input}
    found: dict[str, tuple[float, float]] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"):
            if node.input and node.input[0] in origin:
                origin[node.output[0]] = origin[node.input[0]]
            continue
        if node.op_type in ("Gather", "GatherElements", "ScatterElements"):
            extent = _extent(shapes.get(node.input[0], []), node)
            if node.input[1] in origin and extent:
                name = origin[node.input[1]]
                found[name] = (0, min(extent - 1, found.get(name, (0, extent))[1]))
        elif node.op_type in ("GatherND", "ScatterND") and node.input[1] in origin:
            if extent := min(shapes.get(node.input[0], []), default=0):
                found.setdefault(origin[node.input[1]], (0, extent - 1))
        elif node.op_type in ("Div", "Mod") and node.input[1] in origin:
            found.setdefault(origin[node.input[1]], (1, 2))
    return found


def range_to_type(model: onnx.ModelProto, said: str) -> str:
    """Return which inputs reach the node where ONNX Runtime stopped, and what to type of them.

    Args:
        model: the graph that was run.
        said: ONNX Runtime's words.

    Returns:
        A sentence; of all inputs where the node is not known.
    """
    names = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    stopped = _STOPPED.search(said)
    pending = [n for n in model.graph.node if stopped and n.name == stopped[1]]
    reached, seen = set[str](), set[str]()
    while pending:
        node = pending.pop()
        reads = {name for inner in _own_and_nested(node) for name in inner.input} - seen
        seen |= reads
        reached |= (reads & names.keys()) - stored
        pending += [made[name] for name in reads & made.keys()]
    at_fault = sorted(reached or names.keys() - stored)
    # Where a node stops, it is as a rule an index, a size or an axis.
    at_fault = [name for name in at_fault if names[name] in _INTEGERS] or at_fault
    bounds = _BOUNDS.search(said)
    ends = f"{max(0, int(bounds[1]))}:{bounds[2]}" if bounds else "LOW:HIGH"
    flags = " ".join(f"--range {name}={ends}" for name in at_fault[:_MAX_SHOWN])
    return f"What reaches it is {', '.join(at_fault[:_MAX_SHOWN])}: {flags}"


def _own_and_nested(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for graph in nested(attribute.g):
                yield from graph.node


def _extent(shape: list[int], node: onnx.NodeProto) -> int:
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)
    return shape[axis] if -len(shape) <= axis < len(shape) else 0
