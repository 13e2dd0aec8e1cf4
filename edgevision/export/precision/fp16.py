"""FP16 in the graph: float32 becomes float16 where it is safe, with a Cast where types meet.

Works on FP32 graphs and on INT8 ones (Q/DQ with a float32 rest). Inputs and outputs of the graph,
and of each Loop's body, keep their types. The result is what a strongly typed TensorRT network
takes, from 10.3 on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import anonymous
from edgevision.export.graph.observe import (
    Profiles,
    element_types,
    float_tensors,
    largest_magnitudes,
    typed,
)
from edgevision.export.graph.subgraphs import (
    body_feeds,
    body_model,
    captured,
    check_names,
    loops,
    names_read,
    put_back,
    rename_captured,
)

FLOAT16_MAX = 65504.0
_SMALLEST_FLOAT16 = 2.0**-24
_HEADROOM = 2.0
"""Frames not seen may hold larger values than those scanned."""

# Inputs that the ONNX specification fixes to float32.
_FLOAT32_INPUTS = {"Resize": (1, 2), "NonMaxSuppression": (0, 1, 3, 4)}
# Ops whose float output has a type of its own, not that of an input.
_FLOAT32_OPS = frozenset(
    "Bernoulli ConstantOfShape DynamicQuantizeLinear EyeLike Multinomial RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Range".split()
)
# Reductions of squares and exponentials: TensorRT 10's parser composes them in the input's type, so
# that their inner sums overflow where their answers do not (NVIDIA/TensorRT#4772, #1954). ONNX
# Runtime sums in float32: parity cannot see it.
INNER_SUMS = frozenset(
    "LpNormalization LpPool GlobalLpPool MeanVarianceNormalization ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceSumSquare".split()
)
# Ops that pass a tiny value on to whoever divides by it.
_PASS_TINY = frozenset("Clip Expand Max Pow Reciprocal Reshape Sqrt Squeeze Unsqueeze".split())


@dataclass(frozen=True, slots=True)
class HalfModel:
    """An FP16 graph, and the nodes that had to stay in float32 with the reason."""

    model: onnx.ModelProto
    kept_fp32: dict[str, str]


def to_fp16(
    model: onnx.ModelProto,
    *,
    samples: Iterable[Feeds],
    profiles: Profiles | None = None,
    keep_fp32: Collection[str] = (),
) -> HalfModel:
    """Return `model` in FP16.

    Args:
        model: a graph of float32, possibly with Q/DQ; it is not changed.
        samples: real feeds; a node whose values on them come near float16's end stays in float32.
        profiles: bounds of the dynamic inputs.
        keep_fp32: op types or node names that stay in float32.

    Raises:
        ExportError: the graph cannot be typed, or `keep_fp32` names nothing in it.
    """
    graph = typed(model)
    check_names("keep_fp32", graph, keep_fp32)
    return _halved(graph, list(samples), profiles or {}, keep_fp32)


def _halved(
    graph: onnx.ModelProto, samples: Sequence[Feeds], profiles: Profiles, names: Collection[str]
) -> HalfModel:
    """Convert a typed `graph` in place, the bodies of its loops first."""
    kept = _keep(graph, samples, profiles, names)
    bodies = {}
    for loop in loops(graph.graph):
        body = body_model(graph, loop)
        feeds = list(body_feeds(graph, loop, body, samples, profiles))
        bodies[loop.name] = _halved(body, feeds, {}, names)
        kept |= bodies[loop.name].kept_fp32
    for loop in loops(graph.graph):
        put_back(loop, bodies[loop.name].model)
    converted = _Converter(graph, set(kept)).convert()
    return HalfModel(typed_like(converted), kept)


def typed_like(model: onnx.ModelProto) -> onnx.ModelProto:
    """Check that the types of `model` fit together, and return it without intermediate types."""
    checked = typed(model)
    del checked.graph.value_info[:]
    # What a loop carries may have no known shape, which inputs of a model must have: such a body
    # is checked where it stands.
    if all(value.type.tensor_type.HasField("shape") for value in checked.graph.input):
        onnx.checker.check_model(checked)
    return anonymous(checked)


def _keep(
    model: onnx.ModelProto, samples: Iterable[Feeds], profiles: Profiles, names: Collection[str]
) -> dict[str, str]:
    """Return the nodes that must stay in float32, with the reason."""
    largest = largest_magnitudes(model, float_tensors(model), samples, profiles)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            # No headroom: a weight does not change from frame to frame.
            largest[tensor.name] = float(values.max(initial=0)) / _HEADROOM
    sizes, tiny = _shape_arithmetic(model), _tiny(model)
    kept = {}
    for node in model.graph.node:
        fixed = _FLOAT32_INPUTS.get(node.op_type, ())
        touched = [name for i, name in enumerate(node.input) if i not in fixed] + list(node.output)
        worst = max((largest.get(name, 0.0) for name in touched), default=0.0)
        if node.op_type == "Loop":
            kept[node.name] = "carries float32; its body is converted by itself"
        elif node.name in names or node.op_type in names:
            kept[node.name] = "asked for"
        elif node.op_type in _FLOAT32_OPS:
            kept[node.name] = f"{node.op_type} gives float32"
        elif _adds_up(node):
            kept[node.name] = "ONNX Runtime adds up at places in float32 only"
        elif node.op_type.startswith("QLinear"):
            kept[node.name] = "its scales are float32"
        elif any(a.name == "reduction" and a.s != b"none" for a in node.attribute):
            kept[node.name] = "adds up at indices, which ONNX Runtime does in float32 only"
        elif node.op_type in INNER_SUMS:
            kept[node.name] = "its inner sums may overflow float16"
        elif node.name in sizes:
            kept[node.name] = "computes a shape"
        elif node.name in tiny:
            kept[node.name] = "a constant that float16 takes for 0"
        elif worst * _HEADROOM > FLOAT16_MAX:
            kept[node.name] = f"values up to {worst:.3g}"
    return kept


def _adds_up(node: onnx.NodeProto) -> bool:
    """Whether a node combines what goes to one place, as index_add does."""
    return any(a.name == "reduction" and a.s not in (b"", b"none") for a in node.attribute)


def _shape_arithmetic(model: onnx.ModelProto) -> set[str]:
    """Return the nodes that compute only floats of shapes; float16 is exact up to 2048 only."""
    stored = {i.name for i in model.graph.initializer}
    types, known, found = element_types(model), set[str](), set[str]()
    for node in model.graph.node:
        inputs = {name for name in node.input if name} - stored
        if node.op_type in ("Shape", "Size") or (inputs and inputs <= known):
            known.update(node.output)
            if any(types.get(name) == TensorProto.FLOAT for name in node.output):
                found.add(node.name)
    return found


def _tiny(model: onnx.ModelProto) -> set[str]:
    """Return the nodes whose constants vanish in float16, and who may divide by them.

    A vanished epsilon divides by 0; a few vanished weights among others do no harm.
    """
    arrays = {
        i.name: numpy_helper.to_array(i)
        for i in model.graph.initializer
        if i.data_type == TensorProto.FLOAT
    }
    lost = {n: (a != 0) & (np.abs(a) < _SMALLEST_FLOAT16) for n, a in arrays.items()}
    passed, found = set[str](), set[str]()
    for node in model.graph.node:
        fixed = _FLOAT32_INPUTS.get(node.op_type, ())
        held = [lost[n] for i, n in enumerate(node.input) if n in lost and i not in fixed]
        # One lost scale ruins a channel.
        is_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        starts = any(mask.any() and (is_pair or mask.size == 1) for mask in held)
        if starts or passed & set(node.input):
            found.add(node.name)
            if (starts and not is_pair) or node.op_type in _PASS_TINY:
                passed.update(node.output)
    return found


def free_mark(model: onnx.ModelProto, ends: Sequence[str]) -> str:
    """Return what stands before an added name's end; more of it in a graph that has such names."""
    names = [name for node in model.graph.node for name in (node.name, *node.input, *node.output)]
    mark = "_"
    while any(name.endswith(tuple(mark + end for end in ends)) for name in names):
        mark += "_"
    return mark


class _Converter:
    """Rewrites a typed float32 graph node by node, remembering each tensor's new type."""

    def __init__(self, model: onnx.ModelProto, kept: set[str]) -> None:
        self.mark = free_mark(model, ("fp16", "fp32"))
        self.model = model
        self.kept = kept
        self.types = element_types(model)
        self.stored = {i.name: i for i in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.halves: dict[str, str] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.sources: dict[str, str] = {}

    def convert(self) -> onnx.ModelProto:
        graph = self.model.graph
        wanted = {o.name for o in graph.output if self.types[o.name] == TensorProto.FLOAT}
        source = list(graph.node)
        for node in source:
            target = TensorProto.FLOAT if node.name in self.kept else TensorProto.FLOAT16
            self._rewrite(node, target, wanted)
        self._drop_unread_casts({o.name for o in graph.output})
        used = names_read(self.nodes)
        halves = [
            numpy_helper.from_array(
                numpy_helper.to_array(self.stored[name]).astype(np.float16), half
            )
            for name, half in self.halves.items()
        ]
        outputs = {o.name for o in graph.output}
        kept = [i for i in graph.initializer if i.name in used | outputs]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *halves])
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        return self.model

    def _rewrite(self, node: onnx.NodeProto, target: int, wanted: set[str]) -> None:
        fixed = _FLOAT32_INPUTS.get(node.op_type, ())
        is_cast = node.op_type == "Cast"
        for i, name in enumerate(node.input):
            # A Cast takes whatever comes.
            if name and not is_cast and self._is_float(name):
                node.input[i] = self._as(name, TensorProto.FLOAT if i in fixed else target)
        if is_cast:
            if not self._is_float(node.input[0]):
                # Integers beyond 2048 are not exact in float16: no detour on the way to float32.
                self.sources[node.output[0]] = node.input[0]
                target = TensorProto.FLOAT if node.output[0] in wanted else target
            self._retarget_cast(node, target)
        names = {n: self._as(n, TensorProto.FLOAT) for n in captured(node) if self._is_float(n)}
        rename_captured(node, names)
        late: list[onnx.NodeProto] = []
        for i, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT or not name:
                continue
            self.types[name] = target
            if name in wanted and target == TensorProto.FLOAT16:
                # The graph's output keeps its name and type; others read the half one.
                half = f"{name}{self.mark}fp16"
                node.output[i] = half
                late.append(
                    helper.make_node("Cast", [half], [name], f"{name}{self.mark}to_fp32", to=1)
                )
                self.types[name], self.types[half] = TensorProto.FLOAT, TensorProto.FLOAT16
                self.casts[name, TensorProto.FLOAT16] = half
        self.nodes += [node, *late]

    def _retarget_cast(self, node: onnx.NodeProto, target: int) -> None:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = target

    def _drop_unread_casts(self, outputs: set[str]) -> None:
        used = names_read(self.nodes) | outputs
        self.nodes = [n for n in self.nodes if n.op_type != "Cast" or n.output[0] in used]

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _as(self, name: str, target: int) -> str:
        """Return the name of `name` in type `target`, casting at most once per tensor and type."""
        if name in self.stored:
            if target == TensorProto.FLOAT:
                return name
            return self.halves.setdefault(name, f"{name}{self.mark}fp16")
        if self.types[name] == target:
            return name
        key = (name, target)
        if key not in self.casts:
            cast = f"{name}{self.mark}to_{'fp16' if target == TensorProto.FLOAT16 else 'fp32'}"
            source = self.sources.get(name, name)
            self.nodes.append(helper.make_node("Cast", [source], [cast], f"{cast}_cast", to=target))
            self.casts[key] = cast
        return self.casts[key]
