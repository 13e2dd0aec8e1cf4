"""Scales and levels of a graph, found once; graphs with any of its layers in INT8, made from them.

The bodies of a graph's loops have quantizers of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles
from edgevision.export.graph.qdq_rules import lint_qdq
from edgevision.export.graph.subgraphs import (
    body_feeds,
    body_model,
    loops,
    put_back,
    without_unread,
)
from edgevision.export.precision.bias_correction import corrected, in_a_row
from edgevision.export.precision.calibration import CalibrationSummary, calibrate
from edgevision.export.precision.equalise import equalised
from edgevision.export.precision.fp16 import typed_like
from edgevision.export.precision.placement import (
    Weights,
    has_bias,
    quantizable,
    weight_key,
    with_qdq,
)
from edgevision.export.precision.rounding import learnt
from edgevision.export.precision.scales import Levels, levels_of, scale_of
from edgevision.export.precision.sensitivity import Noise, Numbers, Trial, noises
from edgevision.progress import Progress, silent

_DECONVOLUTION_DB = 6.0
"""A deconvolution must do this much better: what it adds stands in the picture itself."""
_SNR_SAMPLES = 8, 64
_VALUES = 1 << 20
"""Layers are tried on so many values of the inputs, or a little less."""
RECOVERY = ("equalise", "correct", "round")
"""What there is to win accuracy back: across layers, in biases, in how weights are rounded."""
RECOVERED = RECOVERY[:2]
"""What is tried unless asked otherwise: rounding takes longer and wins little at eight bits."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that can be INT8: its operator, and its own signal over its own noise.

    The noise is that of its own quantisation, on the values that it has in the float net.
    """

    op_type: str
    snr_db: float

    def bar(self, min_snr_db: float) -> float:
        """Return what it must show where others show `min_snr_db`; a ConvTranspose 6 dB more."""
        return min_snr_db + _DECONVOLUTION_DB * (self.op_type == "ConvTranspose")

    def __str__(self) -> str:
        """Return the proof, as reports have it."""
        return f"INT8 signal-to-noise {self.snr_db:.1f} dB"


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A float graph with all that INT8 needs to know of it.

    Attributes:
        source: the typed float32 graph; it is never changed.
        layers: what can be INT8, in the graph's order, the bodies of loops first.
        calibration: what the scales came from.
    """

    source: onnx.ModelProto
    layers: Mapping[str, Layer]
    calibration: CalibrationSummary
    _scales: Mapping[str, float]
    _weights: Weights
    _biases: Mapping[str, Numbers]
    _bodies: Mapping[str, Quantizer]

    def graph(self, layers: Collection[str]) -> onnx.ModelProto:
        """Return the graph with `layers` in INT8 and the rest in float32.

        Raises:
            ExportError: TensorRT would refuse it.
        """
        chosen = set(layers) & self.layers.keys()
        made = with_qdq(self.source, chosen, self._scales, self._weights, self._biases)
        refuse_unsupported(made)
        for loop in loops(made.graph):
            if loop.name in self._bodies:
                put_back(loop, self._bodies[loop.name].graph(layers))
        return typed_like(without_unread(made))

    def of_loop(self, loop: onnx.NodeProto) -> Quantizer | None:
        """Return what INT8 needs to know of a loop's body; None where no layer in it can be so."""
        return self._bodies.get(loop.name)


def prepare(
    graph: onnx.ModelProto,
    feeds: Sequence[Feeds],
    *,
    method: str,
    profiles: Profiles | None = None,
    keep_float: Collection[str] = (),
    progress: Progress = silent,
    recover: Collection[str] = RECOVERED,
    on_all: bool = False,
) -> Quantizer | None:
    """Find the scales, levels and signal-to-noise ratios of a typed graph's layers.

    Args:
        graph: a float32 graph of `observe.typed`.
        feeds: typical feeds.
        method: how the ranges are found.
        profiles: bounds of the dynamic inputs.
        keep_float: op types or node names that stay float in any case.
        progress: told how far calibration is.
        recover: what is tried of `RECOVERY`; it is kept where it lowers the error.
        on_all: whether channels are measured on all feeds before they are equalised, and not on a
            few: a ReLU6 then cuts less of frames that were not seen.

    Returns:
        None where no layer could be INT8.

    Raises:
        ExportError: there are no feeds, or a value on them is not finite.
    """
    given = profiles or {}
    bodies = {}
    for loop in loops(graph.graph):
        body = body_model(graph, loop)
        steps = list(body_feeds(graph, loop, body, feeds, given))
        found = prepare(
            body,
            steps,
            method=method,
            keep_float=keep_float,
            progress=progress,
            recover=recover,
            on_all=on_all,
        )
        if found:
            bodies[loop.name] = found
    nodes = quantizable(graph, keep_float)
    if not nodes and not bodies:
        return None
    done: list[str] = []
    if "equalise" in recover:
        even = equalised(graph, feeds if on_all else _some(feeds), given)
        graph = even.model
        if even.channels:
            done.append(f"{even.channels} channels equalised")
    tensors = list(dict.fromkeys(node.input[0] for node in nodes))
    ranges, summary = calibrate(
        graph, tensors, feeds, method=method, profiles=given, progress=progress
    )
    stored = {i.name: i for i in graph.graph.initializer}
    held = {node.name: weight_key(graph, node) for node in nodes}
    weights = {
        key: levels_of(numpy_helper.to_array(stored[key[0]]), key[1])
        for key in dict.fromkeys(held.values())
    }
    trials = [
        Trial(node.name, scale, weights[held[node.name]])
        for node in nodes
        for scale in dict.fromkeys(scale_of(top) for top in ranges[node.input[0]])
    ]
    tried: dict[str, dict[float, Noise]] = {}
    for trial, noise in zip(trials, noises(graph, trials, _some(feeds), given), strict=True):
        tried.setdefault(trial.layer, {})[trial.scale] = noise
    scales = {
        name: _best([tried[node.name] for node in nodes if node.input[0] == name])
        for name in tensors
    }
    if "round" in recover:
        kept = _rounded(graph, nodes, scales, weights, tried, _some(feeds), given, progress)
        done.append(f"{kept} of {len(nodes)} layers have learnt rounding")
    layers = {name: layer for body in bodies.values() for name, layer in body.layers.items()}
    measured = {node.name: tried[node.name][scales[node.input[0]]] for node in nodes}
    biases: dict[str, Numbers] = {}
    if "correct" in recover:
        biases = _biases(graph, nodes, scales, weights, measured, _some(feeds)[::2], given)
        measured |= {name: corrected(measured[name])[1] for name in biases}
    layers |= {node.name: Layer(node.op_type, measured[node.name].snr_db()) for node in nodes}
    if biases:
        done.append(f"{len(biases)} of {len(nodes)} layers have their biases corrected")
    summary = replace(summary, recovery=tuple(done))
    return Quantizer(graph, layers, summary, scales, weights, biases, bodies)


def _rounded(
    graph: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    scales: Mapping[str, float],
    weights: dict[tuple[str, int], Levels],
    tried: Mapping[str, dict[float, Noise]],
    feeds: Sequence[Feeds],
    profiles: Profiles,
    progress: Progress,
) -> int:
    """Learn the rounding of weights; take what lessens a layer's noise, and return how many do."""
    held = {node.name: weight_key(graph, node) for node in nodes}
    alone = [node for node in nodes if list(held.values()).count(held[node.name]) == 1]
    given = {node.name: (scales[node.input[0]], weights[held[node.name]]) for node in alone}
    better = learnt(graph, given, feeds, profiles, progress)
    trials = [Trial(name, given[name][0], levels) for name, levels in better.items()]
    kept = 0
    for trial, noise in zip(trials, noises(graph, trials, feeds, profiles), strict=True):
        if noise.snr_db() > tried[trial.layer][trial.scale].snr_db():
            weights[held[trial.layer]] = trial.weights
            tried[trial.layer][trial.scale] = noise
            kept += 1
    return kept


def _biases(
    graph: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    scales: Mapping[str, float],
    weights: Weights,
    measured: Mapping[str, Noise],
    feeds: Sequence[Feeds],
    profiles: Profiles,
) -> dict[str, Numbers]:
    """Return what is added to the bias of each layer that loses less so."""
    able = [node.name for node in nodes if has_bias(graph, node)]
    whole = with_qdq(graph, [node.name for node in nodes], scales, weights, {})
    found = {}
    for name, mean in in_a_row(graph, whole, able, feeds, profiles).items():
        noise = measured[name]
        every = -(-len(noise.signal) // len(mean))
        some = Noise(noise.signal[::every], noise.noise[::every], mean, noise.counts[::every])
        if (bias := corrected(some)[0]) is not None:
            found[name] = bias
    return found


def _best(readers: Sequence[Mapping[float, Noise]]) -> float:
    """Return the scale at which the layers that read a tensor lose least, in decibels."""
    return max(readers[0], key=lambda scale: sum(reader[scale].snr_db() for reader in readers))


def refuse_unsupported(model: onnx.ModelProto) -> None:
    """Raise an ExportError if TensorRT would not take the Q/DQ of `model`."""
    if findings := lint_qdq(model):
        raise ExportError(
            "the INT8 graph would be refused by TensorRT: "
            + "; ".join(f"{f.node}: {f.message} ({f.remedy})" for f in findings[:5])
        )


def _some(feeds: Sequence[Feeds]) -> Sequence[Feeds]:
    """Return a few feeds, from the first to the last: of a loop, early and late steps.

    Of small ones there are more: a choice by a few hundred values would fit those alone.
    """
    if not feeds:
        return feeds
    values = sum(np.asarray(array).size for array in feeds[0].values())
    count = min(max(_VALUES // max(values, 1), _SNR_SAMPLES[0]), _SNR_SAMPLES[1])
    return feeds[:: -(-len(feeds) // count)]
