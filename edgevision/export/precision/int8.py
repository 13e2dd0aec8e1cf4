"""INT8 as a precision: a float32 graph becomes one whose layers are INT8 where they earn it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx

from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, typed
from edgevision.export.graph.subgraphs import check_names
from edgevision.export.precision.calibration import METHODS, CalibrationSummary
from edgevision.export.precision.placement import QUANTIZED_OPS
from edgevision.export.precision.quantizer import RECOVERED, prepare, refuse_unsupported
from edgevision.progress import Progress, silent

MIN_SNR_DB = 24.0
"""A layer whose own noise is louder loses more than it wins; few are, once ranges are evened."""


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
    method: str = METHODS[0],
    profiles: Profiles | None = None,
    keep_float: Collection[str] = (),
    min_snr_db: float = MIN_SNR_DB,
    recover: Collection[str] = RECOVERED,
    progress: Progress = silent,
) -> QuantizedModel:
    """Return `model` with Q/DQ around its convolutions and matrix products.

    A layer whose own quantisation leaves less than `min_snr_db` of signal over noise stays float; a
    ConvTranspose must show 6 dB more.

    Args:
        model: a float32 graph; it is not changed.
        samples: typical feeds; 50 or more are advised.
        method: one of `calibration.METHODS`.
        profiles: bounds of the dynamic inputs.
        keep_float: op types or node names that stay float in any case.
        min_snr_db: least signal-to-noise ratio of a quantised layer; -inf quantises all.
        recover: what is tried to win accuracy back, of `quantizer.RECOVERY`.
        progress: told how far calibration is.

    Raises:
        ExportError: nothing can be quantised, there are no samples, or `keep_float` names nothing.
    """
    graph = typed(model)
    check_names("keep_float", graph, keep_float)
    quantizer = prepare(
        graph,
        list(samples),
        method=method,
        profiles=profiles,
        keep_float=keep_float,
        recover=recover,
        progress=progress,
    )
    if quantizer is None:
        raise ExportError(
            "nothing to quantise: no float32 Conv, ConvTranspose, Gemm or MatMul with stored "
            "weights. Build FP16 instead."
        )
    layers = quantizer.layers
    int8 = {name: str(layer) for name, layer in layers.items() if layer.clears(min_snr_db)}
    if not int8:
        raise ExportError(
            f"INT8 leaves no layer above {min_snr_db} dB of signal over noise. Look at the "
            "calibration samples, or build FP16."
        )
    noisy = {name: str(layer) for name, layer in layers.items() if name not in int8}
    return QuantizedModel(quantizer.graph(int8), quantizer.calibration, int8, noisy)


def taken_as_int8(model: onnx.ModelProto) -> QuantizedModel:
    """Return a graph that brings its own Q/DQ, its layers as they are.

    Raises:
        ExportError: TensorRT would refuse it.
    """
    graph = typed(model)
    refuse_unsupported(graph)
    scaled = {o for n in graph.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    layers = [n for n in graph.graph.node if n.op_type in QUANTIZED_OPS]
    int8 = {n.name: "as the file has it" for n in layers if set(n.input[:2]) <= scaled}
    return QuantizedModel(graph, None, int8, {})
