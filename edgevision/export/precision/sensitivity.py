"""Which layers INT8 hurts: the noise that each one's own quantisation adds to its own output.

All layers are measured in one graph that holds each of them several times, in float and as INT8
would have it, all fed by the float net: so a layer is not blamed for the noise of those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import Profiles, opset_version
from edgevision.export.precision.scales import Levels
from edgevision.runtime.session import Session

_HARD_PERCENTILE = 10.0
_MIN_POWER = 1e-30
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMean takes its axes as an input."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """A layer, by its name, with a scale for what it reads and levels for what it stores."""

    layer: str
    scale: float
    weights: Levels


@dataclass(frozen=True, slots=True)
class Noise:
    """What a trial did to a layer's output, sample by sample.

    Attributes:
        signal: float64[samples], sums of squares of the float output.
        noise: float64[samples], sums of squares of what the float output is more.
        mean: float64[samples, channels], means of that; of no channel where no bias could mend it.
        counts: float64[samples], elements of a channel.
    """

    signal: Numbers
    noise: Numbers
    mean: Numbers
    counts: Numbers

    def snr_db(self) -> float:
        """Return 10 log10(signal power / noise power) of the layer, as of `hard_db`."""
        return hard_db(self.signal, self.noise)


def hard_db(signal: Numbers, noise: Numbers) -> float:
    """Return 10 log10(signal power / noise power) of samples that have one each.

    It is what a tenth of them lie below, for frames on which a layer fails are lost among bright
    ones that it does well.
    """
    # Without noise all is perfect; without a signal too, if there is none.
    ratios = np.maximum(signal, _MIN_POWER) / np.maximum(noise, _MIN_POWER)
    return float(np.percentile(10 * np.log10(ratios), _HARD_PERCENTILE))


def noises(
    model: onnx.ModelProto, trials: Sequence[Trial], samples: Iterable[Feeds], profiles: Profiles
) -> list[Noise]:
    """Try layers of a typed float32 `model` in INT8, each by itself.

    Args:
        model: a float graph.
        trials: what to try; a layer may have several.
        samples: feeds to measure on.
        profiles: bounds of the dynamic inputs.
    """
    if not trials:
        return []
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    del graph.output[:], graph.value_info[:]
    opset = opset_version(probe)
    nodes = {node.name: node for node in model.graph.node}
    rounded: dict[tuple[str, float], str] = {}
    stored: dict[tuple[str, int], str] = {}
    for number, trial in enumerate(trials):
        node = nodes[trial.layer]
        key = node.input[0], trial.scale
        if key not in rounded:
            rounded[key] = _add_rounding(graph, *key, f"edgevision_in{number}")
        held = node.input[1], id(trial.weights)
        if held not in stored:
            stored[held] = f"edgevision_weights{number}"
            values = trial.weights.dequantized()
            graph.initializer.append(numpy_helper.from_array(values, stored[held]))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.input[1] = rounded[key], stored[held]
        _add_trial(graph, copy, f"edgevision_trial{number}", trial.weights.values.ndim, opset)
    with Session.open(serialized(probe), flavour=ORT, profiles=profiles) as session:
        runs = [session.run(sample) for sample in samples]
    return [_noise(runs, f"edgevision_trial{number}") for number in range(len(trials))]


def _noise(runs: Sequence[dict[str, npt.NDArray[np.generic]]], stem: str) -> Noise:
    signal, noise, size = (
        np.array([float(run[f"{stem}_{kind}"]) for run in runs])
        for kind in ("signal", "noise", "size")
    )
    means = [np.asarray(run[f"{stem}_mean"], np.float64) for run in runs if f"{stem}_mean" in run]
    mean = np.array(means) if means else np.zeros((len(runs), 0))
    return Noise(signal, noise, mean, size / max(mean.shape[1], 1))


def _add_rounding(graph: onnx.GraphProto, name: str, scale: float, stem: str) -> str:
    """Add a Q/DQ pair, and return the name of what comes out."""
    scales = f"{stem}_scale", f"{stem}_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), scales[0]))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), scales[1]))
    graph.node.append(helper.make_node("QuantizeLinear", [name, *scales], [f"{stem}_q"]))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{stem}_q", *scales], [stem]))
    return stem


def _add_trial(
    graph: onnx.GraphProto, copy: onnx.NodeProto, stem: str, rank: int, opset: int
) -> None:
    """Add a layer's quantised copy, and what it does to the output as outputs."""
    exact = copy.output[0]
    copy.name, copy.output[0] = stem, stem
    graph.node.append(copy)
    graph.node.append(helper.make_node("Sub", [exact, stem], [f"{stem}_lost"]))
    for kind, op, name in (
        ("signal", "ReduceSumSquare", exact),
        ("noise", "ReduceSumSquare", f"{stem}_lost"),
        ("size", "Size", exact),
    ):
        given: dict[str, Any] = {} if op == "Size" else {"keepdims": 0}
        graph.node.append(helper.make_node(op, [name], [f"{stem}_{kind}"], **given))
        dtype = TensorProto.INT64 if op == "Size" else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(f"{stem}_{kind}", dtype, []))
    if copy.op_type == "MatMul":
        return
    add_mean(graph, f"{stem}_lost", f"{stem}_mean", rank, opset, keepdims=0)
    graph.output.append(helper.make_tensor_value_info(f"{stem}_mean", TensorProto.FLOAT, ["c"]))


def add_mean(
    graph: onnx.GraphProto, name: str, mean: str, rank: int, opset: int, *, keepdims: int
) -> None:
    """Add the mean of each channel, axis 1 of a tensor of `rank` axes."""
    axes, read, given = [0, *range(2, rank)], [name], {"keepdims": keepdims}
    reduce = helper.make_node("ReduceMean", read, [mean], **cast("dict[str, Any]", given))
    if opset < _AXES_ARE_INPUTS:
        reduce.attribute.append(helper.make_attribute("axes", axes))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(axes), f"{mean}_axes"))
        reduce.input.append(f"{mean}_axes")
    graph.node.append(reduce)
