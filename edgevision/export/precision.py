"""FP16 in the graph: float32 becomes float16 where it is safe, with a Cast where types meet.

Works on FP32 graphs and on INT8 ones (Q/DQ with a float32 rest). Graph inputs and outputs keep
their types. The result is what a strongly typed TensorRT network takes, from 10.3 on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.adapter import Feeds
from edgevision.export.capture import anonymous
from edgevision.export.observe import (
    Profiles,
    element_types,
    float_tensors,
    largest_magnitudes,
    typed,
)

FLOAT16_MAX = 65504.0
_HEADROOM = 2.0
"""Frames not seen may hold larger values than those scanned."""

# Inputs that the ONNX specification fixes to float32.
_FLOAT32_INPUTS = {"Resize": (1, 2)}
# Ops whose float output has a type of its own, not that of an input.
_FLOAT32_OPS = frozenset(
    "Bernoulli ConstantOfShape DynamicQuantizeLinear EyeLike Multinomial RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Range".split()
)


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
    _check_names(graph, keep_fp32)
    kept = _keep(graph, samples, profiles or {}, keep_fp32)
    converted = _Converter(graph, set(kept)).convert()
    return HalfModel(typed_like(converted), kept)


def typed_like(model: onnx.ModelProto) -> onnx.ModelProto:
    """Check that the types of `model` fit together, and return it without intermediate types."""
    checked = typed(model)
    del checked.graph.value_info[:]
    onnx.checker.check_model(checked)
    return anonymous(checked)


def _check_names(model: onnx.ModelProto, names: Collection[str]) -> None:
    known = {node.name for node in model.graph.node} | {n.op_type for n in model.graph.node}
    if unknown := sorted(set(names) - known):
        raise ExportError(f"keep_fp32: no node or op type is called {', '.join(unknown)}")


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
    kept = {}
    for node in model.graph.node:
        fixed = _FLOAT32_INPUTS.get(node.op_type, ())
        touched = [name for i, name in enumerate(node.input) if i not in fixed] + list(node.output)
        worst = max((largest.get(name, 0.0) for name in touched), default=0.0)
        if node.name in names or node.op_type in names:
            kept[node.name] = "asked for"
        elif node.op_type in _FLOAT32_OPS:
            kept[node.name] = f"{node.op_type} gives float32"
        elif worst * _HEADROOM > FLOAT16_MAX:
            kept[node.name] = f"values up to {worst:.3g}"
    return kept


class _Converter:
    """Rewrites a typed float32 graph node by node, remembering each tensor's new type."""

    def __init__(self, model: onnx.ModelProto, kept: set[str]) -> None:
        self.model = model
        self.kept = kept
        self.types = element_types(model)
        self.stored = {i.name: i for i in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.halves: dict[str, str] = {}
        self.casts: dict[tuple[str, int], str] = {}

    def convert(self) -> onnx.ModelProto:
        graph = self.model.graph
        wanted = {o.name for o in graph.output if self.types[o.name] == TensorProto.FLOAT}
        source = list(graph.node)
        for node in source:
            target = TensorProto.FLOAT if node.name in self.kept else TensorProto.FLOAT16
            self._rewrite(node, target, wanted)
        used = {name for node in self.nodes for name in node.input}
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
            self._retarget_cast(node, target)
        late: list[onnx.NodeProto] = []
        for i, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT or not name:
                continue
            self.types[name] = target
            if name in wanted and target == TensorProto.FLOAT16:
                # The graph's output keeps its name and type; others read the half one.
                half = f"{name}_fp16"
                node.output[i] = half
                late.append(helper.make_node("Cast", [half], [name], f"{name}_to_fp32", to=1))
                self.types[name], self.types[half] = TensorProto.FLOAT, TensorProto.FLOAT16
                self.casts[name, TensorProto.FLOAT16] = half
        self.nodes += [node, *late]

    def _retarget_cast(self, node: onnx.NodeProto, target: int) -> None:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = target

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _as(self, name: str, target: int) -> str:
        """Return the name of `name` in type `target`, casting at most once per tensor and type."""
        if name in self.stored:
            if target == TensorProto.FLOAT:
                return name
            return self.halves.setdefault(name, f"{name}_fp16")
        if self.types[name] == target:
            return name
        key = (name, target)
        if key not in self.casts:
            cast = f"{name}_to_{'fp16' if target == TensorProto.FLOAT16 else 'fp32'}"
            self.nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=target))
            self.casts[key] = cast
        return self.casts[key]
