"""Bias correction: what INT8 takes from a channel on average is added to its bias.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", in its
empirical form: the average is that of calibration frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import Profiles, opset_version
from edgevision.export.graph.subgraphs import rename_captured
from edgevision.export.precision.sensitivity import Noise, Numbers, add_mean
from edgevision.runtime.session import Session

_MIN_GAIN = 0.01
"""Of the noise: less is not worth a layer whose bias differs from the float net's."""


def corrected(noise: Noise) -> tuple[Numbers | None, Noise]:
    """Return what to add to a layer's bias, and the noise that is left.

    The noise is measured on each sample with the mean of the samples that are not next to it, so
    that a correction which fits only the frames it came from does not pass. Where it does not lower
    the noise there is none.
    """
    count, channels = noise.mean.shape
    if not channels or count < 2:
        return None, noise
    odd = np.arange(count) % 2 == 1
    of_odd, of_even = noise.mean[odd].mean(axis=0), noise.mean[~odd].mean(axis=0)
    bias = np.where(odd[:, None], of_even, of_odd)
    gained = noise.counts * (2 * bias * noise.mean - bias**2).sum(axis=1)
    left = replace(noise, noise=np.maximum(noise.noise - gained, 0), mean=noise.mean - bias)
    if left.noise.sum() > (1 - _MIN_GAIN) * noise.noise.sum():
        return None, noise
    return noise.mean.mean(axis=0), left


def in_a_row(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    layers: Collection[str],
    feeds: Iterable[Feeds],
    profiles: Profiles,
) -> dict[str, Numbers]:
    """Return what each channel of `layers` loses where all before it are INT8 and put right.

    A layer that is exact in itself still loses by the noise of others: what a ReLU cuts off noise
    around 0 has one sign. In one graph the float net runs beside the quantised one, each layer of
    which is put right by its means of that very sample before the next one reads it.

    Args:
        model: a typed float32 graph.
        quantized: the same graph with Q/DQ at `layers`.
        layers: names of layers that have a bias.
        feeds: samples to measure on.
        profiles: bounds of the dynamic inputs.

    Returns:
        float64[samples, channels] by layer.
    """
    if not layers:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    ranks = {i.name: len(i.dims) for i in model.graph.initializer}
    floats = {node.name: ranks[node.input[1]] for node in model.graph.node if node.name in layers}
    opset = opset_version(probe)
    del graph.output[:], graph.value_info[:]
    graph.initializer.extend(i for i in quantized.graph.initializer if i.name not in ranks)
    made = {name for node in quantized.graph.node for name in node.output if name}
    names = {name: f"edgevision_{name}" for name in made}
    measured = {}
    for node in quantized.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"edgevision_{node.name}"
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [f"edgevision_{name}" if name else "" for name in node.output]
        rename_captured(copy, names)
        graph.node.append(copy)
        if node.name in floats:
            stem = f"edgevision_{node.output[0]}"
            lost = f"{stem}_mean_lost"
            graph.node.append(helper.make_node("Sub", [node.output[0], stem], [f"{stem}_lost"]))
            add_mean(graph, f"{stem}_lost", lost, floats[node.name], opset, keepdims=1)
            graph.node.append(helper.make_node("Add", [stem, lost], [f"{stem}_right"]))
            graph.output.append(helper.make_tensor_value_info(lost, TensorProto.FLOAT, None))
            names[node.output[0]] = f"{stem}_right"
            measured[node.name] = lost
    with Session.open(serialized(probe), flavour=ORT, profiles=profiles) as session:
        runs = [session.run(feed) for feed in feeds]
    return {
        layer: np.array([np.asarray(run[name], np.float64).reshape(-1) for run in runs])
        for layer, name in measured.items()
    }
