"""INT8 as a precision: a float32 graph becomes one whose layers are INT8 where they earn it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import onnx

from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, typed
from edgevision.export.graph.subgraphs import check_names
from edgevision.export.precision.calibration import METHODS, CalibrationSummary
from edgevision.export.precision.end_noise import wide_by_ends
from edgevision.export.precision.quantizer import RECOVERED, Layer, Quantizer, prepare
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
        layers: all that could be INT8; nothing where the graph brought its own scales.
    """

    model: onnx.ModelProto
    calibration: CalibrationSummary | None
    int8: dict[str, str]
    kept_float: dict[str, str]
    layers: Mapping[str, Layer] = field(default_factory=dict)


def to_int8(
    model: onnx.ModelProto,
    samples: Iterable[Feeds],
    *,
    method: str = METHODS[0],
    profiles: Profiles | None = None,
    keep_float: Collection[str] = (),
    min_snr_db: float = MIN_SNR_DB,
    wide_ends: bool = False,
    min_end_snr_db: float | None = None,
    recover: Collection[str] = RECOVERED,
    choose_wide: Callable[[Quantizer], Mapping[str, str]] | None = None,
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
        wide_ends: whether the first layer and the last stay float, where there are more than two.
        min_end_snr_db: signal over noise that the last layers keep, in place of `min_snr_db`; see
            `end_noise`.
        recover: what is tried to win accuracy back, of `quantizer.RECOVERY`.
        choose_wide: names the layers that stay float and says why, in place of `min_snr_db`
            and `wide_ends`.
        progress: told how far calibration is.

    Raises:
        ExportError: nothing can be quantised, there are no samples, or `keep_float` names nothing.
    """
    feeds = list(samples)
    graph = typed(model)
    check_names("keep_float", graph, keep_float)
    quantizer = prepare(
        graph,
        feeds,
        method=method,
        profiles=profiles,
        keep_float=keep_float,
        recover=recover,
        progress=progress,
        on_all=min_end_snr_db is not None,
    )
    if quantizer is None:
        raise ExportError(
            "nothing to quantise: no float32 Conv, ConvTranspose, Gemm or MatMul with stored "
            "weights. Build FP16 instead."
        )
    layers = quantizer.layers
    if choose_wide is not None:
        wide = dict(choose_wide(quantizer))
    elif min_end_snr_db is not None:
        wide = wide_by_ends(quantizer, feeds, profiles or {}, min_end_snr_db, progress)
    else:
        bars = {name: layer.bar(min_snr_db) for name, layer in layers.items()}
        wide = {n: f"below its bar, {b:g} dB" for n, b in bars.items() if layers[n].snr_db < b}
    order = [node.name for node in quantizer.source.graph.node if node.name in layers]
    if choose_wide is None and wide_ends and len(order) > 2:
        wide |= {order[0]: "the first layer", order[-1]: "the last layer"}
    int8 = {name: str(layer) for name, layer in layers.items() if name not in wide}
    if not int8:
        raise ExportError(
            "INT8 leaves no layer that is quiet enough: "
            + "; ".join(f"{name}, {reason}" for name, reason in list(wide.items())[:3])
            + ". Look at the calibration samples, or build FP16."
        )
    noisy = {name: f"{layers[name]}: {reason}" for name, reason in wide.items()}
    return QuantizedModel(quantizer.graph(int8), quantizer.calibration, int8, noisy, layers)
