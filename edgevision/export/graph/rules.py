"""What TensorRT refuses, or does otherwise than ONNX says, found in a graph before any builder.

Sources: builds of each pattern with TensorRT-RTX 1.7, NVIDIA's operator documentation of TensorRT
10.3 to 11.4. What no rule knows is the builder's to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.capabilities import dtype_reason
from edgevision.bundle.targets import TargetProfile
from edgevision.export.graph.observe import constants, opset_version
from edgevision.export.graph.qdq_rules import Finding, lint_qdq
from edgevision.export.graph.reading import REMEDIES
from edgevision.export.precision.fp16 import INNER_SUMS

_MAX_TOP_K = 3840
_NO_LAYER = {
    "BitShift": "compute it with Mul, or leave bit packing to the host",
    "Col2Im": "give it fixed sizes, and `build` writes it as a deconvolution",
    "Compress": "keep every element and multiply by a mask",
    "DFT": "give it fixed sizes, and `build` writes it as a product with a constant matrix; for "
    "irfft take the real part of ifft over the whole spectrum",
    "DeformConv": "gather with GridSample",
    "MaxUnpool": "enlarge what is to be placed by nearest, and multiply it by where the picture "
    "equals its maxima, enlarged likewise",
    "MaxRoiPool": "cut regions with GridSample, as edgevision's Mask R-CNN does",
    "NonMaxSuppression": "keep a fixed number of boxes and suppress by matrix products, as "
    "edgevision's Mask R-CNN does",
    "NonZero": "keep every element and carry a mask, or take a fixed number with TopK",
    "RoiAlign": "cut regions with GridSample, as edgevision's Mask R-CNN does",
    "StringNormalizer": "leave text to the host",
    "TfIdfVectorizer": "leave text to the host",
    "Unique": "keep every element and carry a mask",
}
_SEQUENCES = "Sequence SplitToSequence ConcatFromSequence Optional"
_RANDOM = "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli"
# A layer of the DLA each, within limits that only its compiler knows.
_DLA_OPS = frozenset(
    "Add AveragePool BatchNormalization Clip Concat Conv ConvTranspose DequantizeLinear "
    "GlobalAveragePool GlobalMaxPool LRN MaxPool Mul Pow PRelu QuantizeLinear ReduceMax ReduceMean "
    "ReduceMin ReduceSum Relu Resize Sigmoid Slice Softmax Sub Tanh Transpose".split()
)
_NARROW_TYPES = {
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT4E2M1: "fp4",
}
_ENGINE_TYPES = frozenset(
    {
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8,
        TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL,
    }
)  # fmt: skip
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_UINT8_OPS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True)
class _Scope:
    """A graph or a body of one: its nodes, and what is known of its tensors."""

    graph: onnx.GraphProto
    stored: dict[str, onnx.TensorProto]
    types: dict[str, int]
    quantisers: set[str] = field(default_factory=set)


def check_graph(model: onnx.ModelProto, target: TargetProfile) -> list[Finding]:
    """Return what keeps `target` from running `model` as it is, and what is worth knowing."""
    findings = _check_opset(model, target)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # onnx raises InferenceError, ValueError and others
        payload = str(error).strip().splitlines()[0][:300]
        remedy = "cast one of the two, so that both sides of each op have one type"
        findings.append(Finding("the graph", "types", f"its types do not fit: {payload}", remedy))
        inferred = model
    for scope in _scopes(inferred.graph, {}, {}):
        for rule in _RULES:
            for node in scope.graph.node:
                findings += rule(node, scope)
    findings += lint_qdq(inferred)
    findings += _check_tensors(inferred)
    findings += _check_types(inferred, target)
    if not target.no_dla:
        findings += _dla(inferred.graph)
    return _once(findings)


def _scopes(
    graph: onnx.GraphProto, stored: dict[str, onnx.TensorProto], types: dict[str, int]
) -> Iterator[_Scope]:
    """Give the graph and every body in it; a body sees what its surroundings know."""
    stored = {**stored, **{i.name: i for i in graph.initializer}, **constants(graph)}
    types = {**types, **{name: tensor.data_type for name, tensor in stored.items()}}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    yield _Scope(graph, stored, types)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    yield from _scopes(body, stored, types)


def _no_layer(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    if node.op_type in _NO_LAYER:
        message = f"no layer of TensorRT does {node.op_type} at a fixed size"
        yield _finding(node, "op", message, _NO_LAYER[node.op_type])
    elif node.op_type.startswith(tuple(_SEQUENCES.split())):
        remedy = "stack the tensors along a new axis"
        yield _finding(node, "op", "TensorRT has no sequences", remedy)
    elif node.domain not in ("", "ai.onnx"):
        message = f"'{node.domain}' is not a domain of ONNX: TensorRT would want a plugin"
        yield _finding(node, "plugin", message, "export it with only operators of ONNX")
    elif node.op_type in _RANDOM.split():
        message = "its numbers differ from run to run, so no answer can be held to a reference"
        yield _finding(node, "random", message, "make the noise an input", severity="warning")


def _top_k(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    if node.op_type != "TopK" or len(node.input) < 2:
        return
    stored = scope.stored.get(node.input[1])
    if stored is None:
        remedy = "make K a constant, and mask what is too much"
        yield _finding(node, "topk", "its K is computed", remedy)
    elif (count := int(numpy_helper.to_array(stored).max(initial=0))) > _MAX_TOP_K:
        message = f"K is {count}, at most {_MAX_TOP_K} builds"
        yield _finding(node, "topk", message, "take fewer candidates, or take them twice")


def _attributes(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.g.node}
    if node.op_type in _POOLS and set(values.get("dilations", [])) - {1}:
        # The parser of 10.1 passes over them; a later one refuses them.
        remedy = "give it fixed sizes, and `build` writes a MaxPool of shifted slices"
        yield _finding(node, "pool", "no layer pools with dilations", remedy)
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        remedy = _NO_LAYER["MaxUnpool"]
        yield _finding(node, "pool", "no layer gives the places of maxima", remedy)
    if node.op_type == "Resize" and values.get("antialias"):
        remedy = "give it fixed sizes, and `build` writes it as products with matrices"
        yield _finding(node, "resize", "it is antialiased, which no layer does", remedy)
    if node.op_type == "GridSample" and _text(values.get("mode", "")) in ("linear", "cubic"):
        # NVIDIA/TensorRT#4646, onnx/onnx-tensorrt#1060, seen in the parser of 10.1: it knows
        # opset 16's "bilinear" and "bicubic", and starts from nearest.
        message = f"its mode is '{_text(values['mode'])}', which TensorRT 10 reads as nearest"
        yield _finding(node, "grid sample", message, REMEDIES["GridSample"])
    how = _text(values.get("reduction", "none"))
    if node.op_type in ("ScatterND", "ScatterElements") and how != "none":
        remedy = "scatter without a reduction, or multiply by a one-hot matrix"
        yield _finding(node, "scatter", f"it scatters with reduction {how}", remedy)


def _uint8(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    """Find uint8 anywhere but at Cast and Q/DQ."""
    if node.op_type in _UINT8_OPS or any(a.g.node for a in node.attribute):
        return
    for name in (*node.input, *node.output):
        if scope.types.get(name) == TensorProto.UINT8:
            message = f"it handles uint8 ('{name}'), which only Cast takes"
            remedy = "let Cast be the first op on a uint8 input, and the last before a uint8 output"
            yield _finding(node, "uint8", message, remedy)
            return


def _half_sums(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    """Find reductions whose inner sums TensorRT keeps in float16, where ONNX Runtime does not."""
    if node.op_type in INNER_SUMS and scope.types.get(node.input[0]) == TensorProto.FLOAT16:
        message = "its inner sums are float16 on TensorRT 10, which ends at 65504"
        remedy = "let it compute in float32, with a Cast before and behind it"
        yield _finding(node, "overflow", message, remedy, severity="warning")


def _names(node: onnx.NodeProto, scope: _Scope) -> Iterator[Finding]:
    """Find quantisers that share a name, which TensorRT's parser trips over."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.name:
        if node.name in scope.quantisers:
            remedy = "give each node a name of its own"
            yield _finding(node, "name", "another one has its name", remedy)
        scope.quantisers.add(node.name)


_RULES: tuple[Callable[[onnx.NodeProto, _Scope], Iterator[Finding]], ...] = (
    _no_layer,
    _top_k,
    _attributes,
    _uint8,
    _half_sums,
    _names,
)


def _check_opset(model: onnx.ModelProto, target: TargetProfile) -> list[Finding]:
    opset = opset_version(model)
    if target.opset and opset > target.opset:
        oldest = target.versions[0] if target.versions else "its oldest version"
        message = f"opset {opset}; the parser of TensorRT {oldest} reads up to {target.opset}"
        return [Finding("the graph", "opset", message, f"export with opset {target.opset}")]
    return []


def _check_tensors(model: onnx.ModelProto) -> list[Finding]:
    """Check what crosses the engine's boundary: types that it has, shapes that are known."""
    found = []
    stored = {i.name for i in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for value in (*inputs, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in _ENGINE_TYPES:
            name = TensorProto.DataType.Name(kind) if kind else "unknown"
            message = f"it is {name}, which crosses no engine's boundary as it is"
            found.append(Finding(value.name, "boundary", message, "cast it inside the graph"))
    is_static = all(_is_static(value) for value in inputs)
    for value in model.graph.output:
        if is_static and not _is_static(value):
            message = "its shape depends on the data, so that no buffer can be bound to it"
            remedy = "give it a fixed size, and the count as another output"
            found.append(Finding(value.name, "shape", message, remedy))
    return found


def _check_types(model: onnx.ModelProto, target: TargetProfile) -> list[Finding]:
    """Find types that a GPU of the target, or its TensorRT, does not compute in."""
    if target.versions is None or not target.flavour.has_rules:
        return []
    types = {i.data_type for i in model.graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in model.graph.value_info}
    found = []
    for kind in sorted(types & _NARROW_TYPES.keys()):
        reasons = [dtype_reason(_NARROW_TYPES[kind], sm, target.versions[0]) for sm in target.sm]
        if reasons and all(reasons):
            remedy = "build another precision"
            found.append(Finding("the graph", "type", f"it has {reasons[0]}", remedy))
    return found


def _dla(graph: onnx.GraphProto) -> list[Finding]:
    left = sorted({node.op_type for node in graph.node} - _DLA_OPS - {"Cast", "Constant"})
    if not left:
        return []
    message = f"on a DLA these would fall back to the GPU: {', '.join(left)}"
    remedy = "nothing, unless the DLA shall run it: engines are built for the GPU"
    return [Finding("the graph", "dla", message, remedy, "note")]


def _is_static(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim)


def _once(findings: list[Finding]) -> list[Finding]:
    """Keep the first finding of each node and rule."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.node, finding.rule), finding)
    return list(kept.values())


def _finding(
    node: onnx.NodeProto, rule: str, message: str, remedy: str, *, severity: str = "error"
) -> Finding:
    name = node.name or node.output[0]
    return Finding(f"{name} ({node.op_type})", rule, message, remedy, severity)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def working_bytes(model: onnx.ModelProto) -> int | None:
    """Return weights and the largest set of activations alive at once; None if shapes are open.

    An estimate: an engine merges layers and needs less for activations, and takes workspace and
    padding, which need more. Sizes are those at the dtypes of the graph.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception:  # the finding "types" has told of it
        return None
    graph = inferred.graph
    weights = sum(numpy_helper.to_array(i).nbytes for i in graph.initializer)
    sizes: dict[str, int] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if not _is_static(value):
            return None
        element = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        sizes[value.name] = element * int(np.prod([d.dim_value for d in kind.shape.dim], dtype=int))
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    alive = sum(sizes.get(value.name, 0) for value in graph.input)
    most = alive
    outputs = {value.name for value in graph.output}
    for i, node in enumerate(graph.node):
        alive += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, alive)
        dead = {name for name in (*node.input, *node.output) if last_use.get(name, i) == i}
        alive -= sum(sizes.get(name, 0) for name in dead - outputs)
    return weights + most
