"""Where QuantizeLinear and DequantizeLinear go: where TensorRT fuses them.

Rules (NVIDIA, "Working with quantized types"; measured on TensorRT-RTX): symmetric int8, zero point
0, one scale per activation tensor and one per output channel of weights, inputs of Conv,
ConvTranspose, Gemm and MatMul quantised and never their outputs, biases left float, and the
identity branch of a residual Add quantised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.export.graph.observe import element_types
from edgevision.export.graph.qdq_rules import output_axis
from edgevision.export.graph.subgraphs import without_unread
from edgevision.export.precision.fp16 import free_mark, typed_like
from edgevision.export.precision.scales import Levels

QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OF_PAIR = ("scale", "zero")
_BIAS = "bias"

Weights = Mapping[tuple[str, int], Levels]
"""By the name of what is stored, and the axis of its output channels."""


def quantizable(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> list[onnx.NodeProto]:
    """List the layers of a typed `model` that can be INT8, but for names and op types to keep."""
    # A vector of weights has no output channels to scale by.
    stored = {i.name for i in model.graph.initializer if len(i.dims) > 1}
    values = {i.name for i in model.graph.initializer}
    types = element_types(model)
    return [
        node
        for node in model.graph.node
        if node.op_type in QUANTIZED_OPS
        and node.input[1] in stored
        and node.input[0] not in values
        and types.get(node.input[0]) == types.get(node.input[1]) == TensorProto.FLOAT
        and not {node.name, node.op_type} & set(keep_float)
    ]


def weight_key(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[str, int]:
    """Return where the levels of a layer's weights are found: tied weights have several axes."""
    (stored,) = (i for i in model.graph.initializer if i.name == node.input[1])
    return node.input[1], output_axis(node, len(stored.dims))


def has_bias(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether something can be added to a layer's bias: it has a stored one, or place for one."""
    if node.op_type == "MatMul":
        return False
    if any(a.name == "beta" and a.f != 1 for a in node.attribute):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    return any(i.name == node.input[2] and len(i.dims) == 1 for i in model.graph.initializer)


def with_qdq(
    model: onnx.ModelProto,
    names: Collection[str],
    scales: Mapping[str, float],
    weights: Weights,
    biases: Mapping[str, npt.NDArray[np.float64]],
) -> onnx.ModelProto:
    """Return a copy of a typed `model` with Q/DQ at the layers called `names`.

    Args:
        model: a float32 graph.
        names: layers of `quantizable`.
        scales: of the activations that they read, by tensor.
        weights: the levels of what they store.
        biases: what is added to those of some layers, by name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    layers = [node for node in copy.graph.node if node.name in set(names)]
    writer = _Writer(copy, scales, weights)
    for node in layers:
        writer.quantize_layer(node)
        if node.name in biases:
            writer.add_to_bias(node, biases[node.name])
    writer.quantize_residuals(layers)
    return typed_like(writer.finish())


class _Writer:
    """Inserts Q/DQ pairs into a graph, one per tensor however many layers read it."""

    def __init__(
        self, model: onnx.ModelProto, scales: Mapping[str, float], weights: Weights
    ) -> None:
        self.mark = free_mark(model, ("q", "dq", *_OF_PAIR, "Q", "DQ", _BIAS))
        self.model = model
        self.scales = scales
        self.weights = weights
        self.stored = {i.name: i for i in model.graph.initializer}
        self.added: list[onnx.TensorProto] = []
        self.pairs: dict[str, list[onnx.NodeProto]] = {}
        self.done: dict[str, str] = {}
        self.axes: dict[str, int] = {}

    def quantize_layer(self, node: onnx.NodeProto) -> None:
        node.input[0] = self._activation(node.input[0])
        node.input[1] = self._weight(node)

    def add_to_bias(self, node: onnx.NodeProto, more: npt.NDArray[np.float64]) -> None:
        before = node.input[2] if len(node.input) > 2 else ""
        known = numpy_helper.to_array(self.stored[before]).astype(np.float64) if before else 0.0
        name = self._added(node.output[0], _BIAS)
        self.added.append(numpy_helper.from_array((known + more).astype(np.float32), name))
        node.input[2:] = [name]

    def quantize_residuals(self, layers: list[onnx.NodeProto]) -> None:
        """Give an Add its identity branch through the Q/DQ that a layer reads anyway."""
        products = {layer.output[0] for layer in layers}
        for node in self.model.graph.node:
            if node.op_type != "Add" or sum(name in products for name in node.input) != 1:
                continue
            for i, name in enumerate(node.input):
                if name in self.done:
                    node.input[i] = self.done[name]

    def finish(self) -> onnx.ModelProto:
        graph = self.model.graph
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            # Before the first reader, which is not always the layer that the pair was made for.
            for name in node.input:
                nodes += self.pairs.pop(name, ())
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self.added)
        return without_unread(self.model)

    def _activation(self, name: str) -> str:
        if name not in self.done:
            scale = np.array(self.scales[name], np.float32)
            levels, stems = self._added(name, "q"), [self._added(name, x) for x in _OF_PAIR]
            self.added.append(numpy_helper.from_array(scale, stems[0]))
            self.added.append(numpy_helper.from_array(np.array(0, np.int8), stems[1]))
            self._pair(name, levels, stems)
            first = helper.make_node("QuantizeLinear", [name, *stems], [levels])
            first.name = self._added(name, "Q")
            self.pairs[self.done[name]].insert(0, first)
        return self.done[name]

    def _weight(self, node: onnx.NodeProto) -> str:
        name = node.input[1]
        axis = output_axis(node, len(self.stored[name].dims))
        # Tied weights may have their output channels along another axis in another layer.
        stem = name if self.axes.setdefault(name, axis) == axis else f"{name}{self.mark}axis{axis}"
        if stem not in self.done:
            rounded = self.weights[name, axis]
            levels, stems = self._added(stem, "q"), [self._added(stem, x) for x in _OF_PAIR]
            zeros = np.zeros(len(rounded.scales), np.int8)
            self.added += [
                numpy_helper.from_array(rounded.values, levels),
                numpy_helper.from_array(rounded.scales, stems[0]),
                numpy_helper.from_array(zeros, stems[1]),
            ]
            self._pair(stem, levels, stems, axis=axis)
        return self.done[stem]

    def _pair(self, name: str, levels: str, stems: list[str], **given: Any) -> None:
        self.done[name] = back = self._added(name, "dq")
        node = helper.make_node("DequantizeLinear", [levels, *stems], [back], **given)
        node.name = self._added(name, "DQ")
        self.pairs[back] = [node]

    def _added(self, name: str, end: str) -> str:
        return f"{name}{self.mark}{end}"
