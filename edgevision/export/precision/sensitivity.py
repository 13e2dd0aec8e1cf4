"""Which layers INT8 hurts: the noise that each one's own quantisation adds to its own output.

All layers are measured in one graph that holds each of them twice, in float and with Q/DQ, both fed
by the float net: so a layer is not blamed for the noise of those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import Profiles
from edgevision.runtime.session import Session

_HARD_PERCENTILE = 10.0
_MIN_POWER = 1e-30


def signal_to_noise_db(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    layers: Sequence[str],
    samples: Iterable[Feeds],
    profiles: Profiles,
) -> dict[str, float]:
    """Return 10 log10(signal power / quantisation noise power) of each layer's output.

    Each sample has its own; what a tenth of them lie below is the layer's, for frames on which a
    layer fails are lost among bright ones that it does well.

    Args:
        model: the float graph.
        quantized: the same graph with Q/DQ at `layers`.
        layers: names of the quantised nodes.
        samples: feeds to measure on.
        profiles: bounds of the dynamic inputs.
    """
    if not layers:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    del graph.output[:], graph.value_info[:]
    known = {i.name for i in graph.initializer}
    graph.initializer.extend(i for i in quantized.graph.initializer if i.name not in known)
    graph.node.extend(
        node
        for node in quantized.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    )
    chosen = set(layers)
    order = []
    for node in quantized.graph.node:
        if node.name in chosen:
            order.append(node.name)
            _add_layer(graph, node, len(order))
    with Session.open(serialized(probe), flavour=ORT, profiles=profiles) as session:
        runs = [session.run(sample) for sample in samples]
    powers = np.array([[float(power) for power in run.values()] for run in runs])
    # A layer without noise is perfect; one without a signal too, if it adds none.
    ratios = np.maximum(powers[:, 0::2], _MIN_POWER) / np.maximum(powers[:, 1::2], _MIN_POWER)
    decibels = np.percentile(10 * np.log10(ratios), _HARD_PERCENTILE, axis=0)
    return dict(zip(order, decibels.tolist(), strict=True))


def _add_layer(graph: onnx.GraphProto, node: onnx.NodeProto, number: int) -> None:
    """Add a layer's quantised copy, and the powers of its signal and noise as outputs."""
    stem = f"edgevision_twin{number}"
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = stem
    copy.output[0] = stem
    graph.node.append(copy)
    graph.node.append(helper.make_node("Sub", [node.output[0], stem], [f"{stem}_noise"]))
    for kind, name in (("signal", node.output[0]), ("noise", f"{stem}_noise")):
        square, power = f"{stem}_{kind}2", f"{stem}_{kind}_power"
        graph.node.append(helper.make_node("Mul", [name, name], [square]))
        graph.node.append(helper.make_node("ReduceMean", [square], [power], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(power, TensorProto.FLOAT, []))
