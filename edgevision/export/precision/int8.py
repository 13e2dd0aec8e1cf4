"""INT8 in the graph: QuantizeLinear and DequantizeLinear where TensorRT fuses them.

Rules (NVIDIA, "Working with quantized types"; measured on TensorRT-RTX): symmetric int8, zero point
0, one scale per activation tensor and one per output channel of weights, inputs of Conv,
ConvTranspose, Gemm and MatMul quantised and never their outputs, biases left float, and the
identity branch of a residual Add quantised.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, element_types, typed
from edgevision.export.graph.qdq_rules import output_axis, refuse_qdq
from edgevision.export.graph.subgraphs import (
    body_feeds,
    body_model,
    check_names,
    loops,
    put_back,
    without_unread,
)
from edgevision.export.precision.calibration import CalibrationSummary, calibrate
from edgevision.export.precision.fp16 import free_mark, typed_like
from edgevision.export.precision.sensitivity import signal_to_noise_db
from edgevision.progress import Progress, silent

_QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LEVELS = 127
MIN_SNR_DB = 24.0
"""On unet-camvid this keeps 10 of 60 layers float: mIoU 0.7202 instead of 0.7146 (FP32 0.7205)."""
_DECONVOLUTION_DB = 6.0
"""A deconvolution must do this much better: what it adds stands in the picture itself."""
_SNR_SAMPLES = 16
_OF_PAIR = ("scale", "zero")
# A scale must survive float16, whose numbers below 2**-14 lose digits one by one.
_SMALLEST_SCALE = 2.0**-18


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """An INT8 graph with a float32 rest.

    Attributes:
        model: the graph.
        calibration: what the scales came from; None where the graph brought them.
        int8: layers that are INT8, with the proof.
        kept_float: layers that INT8 would hurt too much, with the reason.
    """

    model: onnx.ModelProto
    calibration: CalibrationSummary | None
    int8: dict[str, str]
    kept_float: dict[str, str]


def to_int8(
    model: onnx.ModelProto,
    samples: Iterable[Feeds],
    *,
    method: str = "percentile",
    profiles: Profiles | None = None,
    keep_float: Collection[str] = (),
    min_snr_db: float = MIN_SNR_DB,
    progress: Progress = silent,
) -> QuantizedModel:
    """Return `model` with Q/DQ around its convolutions and matrix products.

    A layer whose own quantisation leaves less than `min_snr_db` of signal over noise stays float; a
    ConvTranspose must show 6 dB more.

    Args:
        model: a float32 graph; it is not changed.
        samples: typical feeds; 50 or more are advised.
        method: "percentile", "entropy" or "minmax".
        profiles: bounds of the dynamic inputs.
        keep_float: op types or node names that stay float in any case.
        min_snr_db: least signal-to-noise ratio of a quantised layer; -inf quantises all.
        progress: told how far calibration is.

    Raises:
        ExportError: nothing can be quantised, there are no samples, or `keep_float` names nothing.
    """
    graph, feeds = typed(model), list(samples)
    check_names("keep_float", graph, keep_float)
    done = _quantized(graph, feeds, method, profiles or {}, keep_float, min_snr_db, progress)
    if done is None:
        raise ExportError(
            "nothing to quantise: no float32 Conv, ConvTranspose, Gemm or MatMul with stored "
            "weights. Build FP16 instead."
        )
    if not done.int8:
        raise ExportError(
            f"INT8 leaves no layer above {min_snr_db} dB of signal over noise. Look at the "
            "calibration samples, or build FP16."
        )
    return done


def _quantized(
    graph: onnx.ModelProto,
    feeds: Sequence[Feeds],
    method: str,
    profiles: Profiles,
    keep_float: Collection[str],
    min_snr_db: float,
    progress: Progress,
) -> QuantizedModel | None:
    """Quantise a typed `graph`, the bodies of its loops first; None where there is no layer."""
    bodies = {}
    for loop in loops(graph.graph):
        body = body_model(graph, loop)
        steps = list(body_feeds(graph, loop, body, feeds, profiles))
        done = _quantized(body, steps, method, {}, keep_float, min_snr_db, progress)
        if done:
            bodies[loop.name] = done
    layers = _layers(graph, keep_float)
    if not layers and not bodies:
        return None
    whole = _flat(graph, layers, feeds, method, profiles, min_snr_db, progress)
    for loop in loops(whole.model.graph):
        if loop.name in bodies:
            put_back(loop, bodies[loop.name].model)
            whole.int8.update(bodies[loop.name].int8)
            whole.kept_float.update(bodies[loop.name].kept_float)
    return replace(whole, model=typed_like(without_unread(whole.model)))


def _flat(
    graph: onnx.ModelProto,
    layers: Sequence[onnx.NodeProto],
    feeds: Sequence[Feeds],
    method: str,
    profiles: Profiles,
    min_snr_db: float,
    progress: Progress,
) -> QuantizedModel:
    """Quantise `layers` of a graph, and leave its loops as they are."""
    tensors = list(dict.fromkeys(node.input[0] for node in layers))
    with warnings.catch_warnings():
        # numpy's histogram over constant tensors; the scale is handled below.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        ranges, summary = calibrate(
            graph, tensors, feeds, method=method, profiles=profiles, progress=progress
        )
    scales = {name: _scale(ranges[name]) for name in tensors}
    names = [node.name for node in layers]
    quantized = _with_qdq(graph, names, scales)
    snr_db = signal_to_noise_db(graph, quantized, names, _some(feeds), profiles)
    strict = {node.name for node in layers if node.op_type == "ConvTranspose"}
    proofs = {n: f"INT8 signal-to-noise {db:.1f} dB" for n, db in snr_db.items()}
    noisy = {
        name: proofs[name]
        for name, db in snr_db.items()
        if db < min_snr_db + _DECONVOLUTION_DB * (name in strict)
    }
    if noisy:
        names = [name for name in names if name not in noisy]
        quantized = _with_qdq(graph, names, scales)
    refuse_qdq(quantized)
    return QuantizedModel(quantized, summary, {name: proofs[name] for name in names}, noisy)


def _with_qdq(
    model: onnx.ModelProto, names: Collection[str], scales: dict[str, float]
) -> onnx.ModelProto:
    """Return a copy of a typed `model` with Q/DQ at the layers called `names`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    layers = [node for node in copy.graph.node if node.name in set(names)]
    writer = _Writer(copy, scales)
    for node in layers:
        writer.quantize_layer(node)
    writer.quantize_residuals(layers)
    return typed_like(writer.finish())


def _some(feeds: Sequence[Feeds]) -> Sequence[Feeds]:
    """Return a few feeds, from the first to the last: of a loop, early and late steps."""
    return feeds[:: -(-len(feeds) // _SNR_SAMPLES)] if feeds else feeds


def _layers(model: onnx.ModelProto, keep_float: Collection[str]) -> list[onnx.NodeProto]:
    nodes = list(model.graph.node)
    # A vector of weights has no output channels to scale by.
    stored = {i.name for i in model.graph.initializer if len(i.dims) > 1}
    values = {i.name for i in model.graph.initializer}
    types = element_types(model)
    return [
        node
        for node in nodes
        if node.op_type in _QUANTIZED_OPS
        and node.input[1] in stored
        and node.input[0] not in values
        and types.get(node.input[0]) == types.get(node.input[1]) == TensorProto.FLOAT
        and not {node.name, node.op_type} & set(keep_float)
    ]


def _scale(magnitude: float) -> float:
    return float(_half_up(np.array(magnitude / _LEVELS)))


def _half_up(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the next float16 numbers not below `scale`, as float32: the same in both rests."""
    scale = np.maximum(scale, _SMALLEST_SCALE)
    half = scale.astype(np.float16)
    half = np.where(half.astype(np.float64) < scale, np.nextafter(half, np.float16(np.inf)), half)
    return half.astype(np.float32)


class _Writer:
    """Inserts Q/DQ pairs into a graph, one per tensor however many layers read it."""

    def __init__(self, model: onnx.ModelProto, scales: dict[str, float]) -> None:
        self.mark = free_mark(model, ("q", "dq", *_OF_PAIR, "Q", "DQ"))
        self.model = model
        self.scales = scales
        self.stored = {i.name: i for i in model.graph.initializer}
        self.added: list[onnx.TensorProto] = []
        self.pairs: dict[str, list[onnx.NodeProto]] = {}
        self.done: dict[str, str] = {}
        self.axes: dict[str, int] = {}

    def quantize_layer(self, node: onnx.NodeProto) -> None:
        node.input[0] = self._activation(node.input[0])
        node.input[1] = self._weight(node)

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
            weights = numpy_helper.to_array(self.stored[name]).astype(np.float64)
            others = tuple(i for i in range(weights.ndim) if i != axis)
            scales = _half_up(np.abs(weights).max(axis=others) / _LEVELS)
            shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
            values = np.rint(weights / scales.astype(np.float64).reshape(shape))
            levels, stems = self._added(stem, "q"), [self._added(stem, x) for x in _OF_PAIR]
            zeros = np.zeros(len(scales), np.int8)
            self.added += [
                numpy_helper.from_array(values.clip(-_LEVELS, _LEVELS).astype(np.int8), levels),
                numpy_helper.from_array(scales, stems[0]),
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
