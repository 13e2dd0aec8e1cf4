"""One model's way to its graphs: FP32, then FP16, then INT8, each held against the FP32 answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.targets import Flavour
from edgevision.bundle.tensors import ShapeProfile, TensorSpec
from edgevision.errors import ExportError, ParityError
from edgevision.export.adapters.adapter import Array, Feeds, ModelAdapter
from edgevision.export.adapters.tensors import graph_inputs, graph_outputs
from edgevision.export.graph.capture import serialized
from edgevision.export.precision.calibration import CalibrationSummary
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.int8 import MIN_SNR_DB, to_int8
from edgevision.progress import Progress, silent
from edgevision.runtime.session import Session
from edgevision.tasks.matching import distances
from edgevision.tasks.task import compare_outputs

# Share of label elements that may differ from FP32. A bar against a broken graph, not a measure of
# accuracy: that is the task's metric. Labels differ where two classes are nearly as likely.
_LABEL_SHARES = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.05, "int8-host": 0.05}
# Levels of 255 that pixels of a made picture may be off, and the share that may be further off.
_PIXEL_LEVELS = {"fp32": 1.0, "fp16": 2.0, "int8": 16.0, "int8-host": 16.0}
_PIXEL_SHARES = {"fp32": 0.0, "fp16": 2e-3, "int8": 0.02, "int8-host": 0.02}
# Distance of float elements, relative to the largest magnitude of the output.
_FLOAT_DISTANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2, "int8-host": 0.2}
_FLOAT_SHARES = {"fp32": 0.0, "fp16": 1e-3, "int8": 1e-2, "int8-host": 1e-2}
# Detections paired by `matching`: how far each may be, and the share that may be further off.
_OBJECT_DISTANCES = {
    "labels": {"fp32": 0.0, "fp16": 0.0, "int8": 0.0, "int8-host": 0.0},
    "boxes": {"fp32": 0.01, "fp16": 0.1, "int8": 0.3, "int8-host": 0.3},
    "scores": {"fp32": 1e-3, "fp16": 0.05, "int8": 0.3, "int8-host": 0.3},
    "masks": {"fp32": 1e-2, "fp16": 0.05, "int8": 0.2, "int8-host": 0.2},
}
# Best captions: how many may be others, and how far scores and weights of the same ones may be off.
_CAPTION_SHARES = {"fp32": 0.0, "fp16": 0.125, "int8": 0.25, "int8-host": 0.25}
_CAPTION_DISTANCES = {
    "tokens": {"fp32": 0.0, "fp16": 0.0, "int8": 0.0, "int8-host": 0.0},
    "scores": {"fp32": 1e-3, "fp16": 0.1, "int8": 1.0, "int8-host": 1.0},
    "attention": {"fp32": 1e-3, "fp16": 0.05, "int8": 0.3, "int8-host": 0.3},
}
# One word changes all that follow. On captioner-digits 3 of 62 layers stay float instead of 1, and
# 96 to 97 % of 200 captions are the same instead of 93 to 95 %, in every form.
_LEAST_SNR_DB = {"caption": 27.0, "stages": 27.0}
_OBJECT_SHARES = {"fp32": 0.02, "fp16": 0.05, "int8": 0.2, "int8-host": 0.2}


@dataclass(frozen=True, slots=True)
class ExportedStage:
    """The graphs of one stage and their proof.

    Attributes:
        graphs: ONNX bytes by step: "fp32"; "fp16"; "int8" with its rest in FP16, for GPUs;
            "int8-host" with the same scales and its rest in FP32, for CPUs.
        inputs: what goes in.
        outputs: what comes out.
        profiles: bounds of the dynamic inputs.
        golden_inputs: samples first, by input name.
        golden_outputs: the FP32 answers of the model itself, samples first, by output name.
        parity: each step and output against the golden outputs.
        tolerances: what each step is allowed, by output name.
        kept: nodes left in a wider type than asked for, with the reason: float32 in FP16 graphs,
            float in INT8 graphs.
        int8: layers that are INT8, with their signal-to-noise ratio.
        calibration: what INT8's scales came from.
    """

    graphs: Mapping[str, bytes]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: Mapping[str, ShapeProfile]
    golden_inputs: dict[str, Array]
    golden_outputs: dict[str, Array]
    parity: tuple[ParityReport, ...]
    tolerances: Mapping[str, Mapping[str, Tolerance]]
    kept: Mapping[str, str]
    int8: Mapping[str, str]
    calibration: CalibrationSummary | None


def export_stage(
    adapter: ModelAdapter,
    *,
    precision: str,
    samples: Sequence[Feeds],
    calibration: Sequence[Feeds] | None = None,
    method: str = "percentile",
    keep_fp32: Collection[str] = (),
    progress: Progress = silent,
) -> ExportedStage:
    """Export `adapter` step by step up to `precision`.

    Args:
        adapter: the model.
        precision: "fp32", "fp16" or "int8".
        samples: a few feeds; they become the golden inputs, and FP16's ranges are scanned on them.
        calibration: typical feeds, for INT8.
        method: how INT8's ranges are found.
        keep_fp32: op types or node names that stay in float32.
        progress: told how far the work is.

    Raises:
        ExportError: a step is not possible.
        ParityError: a step's graph disagrees with the model.
    """
    if not samples:
        raise ExportError("no samples were given; one is the least that can prove a graph")
    golden_inputs = _stacked(samples)
    golden_outputs = _stacked([adapter.reference(sample) for sample in samples])
    _check_numbers(golden_outputs)
    if adapter.task == "instance":
        _check_objects(golden_outputs)
    progress("capturing", 0, 0)
    fp32 = _named(adapter.to_onnx(), golden_outputs)
    keep_fp32 = {*keep_fp32, *adapter.kept_fp32(fp32)}
    inputs, outputs = graph_inputs(fp32), graph_outputs(fp32)
    profiles = dict(adapter.profiles)
    steps: dict[str, onnx.ModelProto] = {"fp32": fp32}
    kept: dict[str, str] = {}
    proven: dict[str, str] = {}
    summary = None
    if precision in ("fp16", "int8"):
        progress("converting to FP16", 0, 0)
        half = to_fp16(fp32, samples=samples, profiles=profiles, keep_fp32=keep_fp32)
        steps["fp16"], kept = half.model, half.kept_fp32
    if precision == "int8":
        quantized = to_int8(
            fp32,
            calibration or (),
            method=method,
            profiles=profiles,
            keep_float=keep_fp32,
            min_snr_db=_LEAST_SNR_DB.get(adapter.task, MIN_SNR_DB),
            progress=progress,
        )
        half = to_fp16(quantized.model, samples=samples, profiles=profiles, keep_fp32=keep_fp32)
        steps["int8"], steps["int8-host"] = half.model, quantized.model
        summary, proven = quantized.calibration, quantized.int8
        kept = {**kept, **half.kept_fp32, **quantized.kept_float}
    graphs = {step: serialized(model) for step, model in steps.items()}
    tolerances = {step: _tolerances(adapter.task, step, golden_outputs) for step in graphs}
    parity: list[ParityReport] = []
    for done, (step, graph) in enumerate(graphs.items()):
        progress("checking parity", done, len(graphs))
        parity += _check(
            adapter.task, step, graph, profiles, samples, golden_outputs, tolerances[step]
        )
    return ExportedStage(
        graphs=graphs,
        inputs=inputs,
        outputs=outputs,
        profiles=profiles,
        golden_inputs=golden_inputs,
        golden_outputs=golden_outputs,
        parity=tuple(parity),
        tolerances=tolerances,
        kept=kept,
        int8=proven,
        calibration=summary,
    )


def _check(
    task: str,
    step: str,
    graph: bytes,
    profiles: Mapping[str, ShapeProfile],
    samples: Sequence[Feeds],
    golden: Mapping[str, Array],
    tolerances: Mapping[str, Tolerance],
) -> list[ParityReport]:
    with Session.open(graph, flavour=Flavour.ORT, profiles=profiles) as session:
        answers = _stacked([session.run(sample) for sample in samples])
    reports = compare_outputs(golden, answers, tolerances, task=task, name=step)
    for report in reports:
        if not report.passed:
            raise ParityError(
                f"the {step} graph does not do what the model does: {report}. Look at the first "
                "samples, or keep more of the net in FP32: --set keep_fp32=NODE (keep_fp32=).",
                report=report,
            )
    return reports


def _tolerances(task: str, step: str, golden: Mapping[str, Array]) -> dict[str, Tolerance]:
    """Return the bars of one step's outputs, as the task looks at them."""
    if task == "generated":
        return {name: picture_tolerance(step) for name in golden}
    if task == "instance":
        share = _OBJECT_SHARES[step]
        return {name: Tolerance(far[step], share) for name, far in _OBJECT_DISTANCES.items()}
    if task == "caption":
        share = _CAPTION_SHARES[step]
        far = _CAPTION_DISTANCES.items()
        return {name: Tolerance(bars[step], share) for name, bars in far if name in golden}
    if task == "stages":  # a word is the same or another, as in a whole caption
        return {name: _stage_tolerance(name, step, array) for name, array in golden.items()}
    return {name: _tolerance(step, array) for name, array in golden.items()}


def _stage_tolerance(name: str, step: str, golden: Array) -> Tolerance:
    """Return the bar of what one step of a search gives."""
    share = _CAPTION_SHARES[step]
    if golden.dtype.kind != "f":
        return Tolerance(0.0, share)
    known = {"gained": "scores", "places": "attention"}
    if name in known:  # log-probabilities and weights have a scale of their own
        return Tolerance(_CAPTION_DISTANCES[known[name]][step], share)
    return _tolerance(step, golden)


def _tolerance(step: str, golden: Array) -> Tolerance:
    """Return the bar of one output: labels may rarely differ, floats by a share of their range."""
    if golden.dtype.kind != "f":
        return Tolerance(0.0, _LABEL_SHARES[step])
    largest = float(np.abs(golden[np.isfinite(golden)]).max(initial=0))
    return Tolerance(max(largest, 1e-6) * _FLOAT_DISTANCES[step], _FLOAT_SHARES[step])


def picture_tolerance(step: str) -> Tolerance:
    """Return how many levels the pixels of one step's pictures may be off."""
    return Tolerance(_PIXEL_LEVELS[step], _PIXEL_SHARES[step])


def _stacked(samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    try:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    except (KeyError, ValueError) as error:
        raise ExportError(
            f"the samples differ in names or shapes: {error}. Give samples of one shape."
        ) from error


def _check_numbers(golden: Mapping[str, Array]) -> None:
    """Refuse a model that gives NaN: every graph of it would agree."""
    for name, values in golden.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ExportError(
                f"the model itself gives NaN in output '{name}' on a sample. Look at that sample "
                "and at the weights."
            )


def _check_objects(golden: Mapping[str, Array]) -> None:
    """Refuse samples without an object: every graph would agree on them."""
    if not distances(golden, golden)["labels"].size:
        raise ExportError(
            "the model finds no object in any sample, which proves nothing about a graph. Give "
            "frames that show its classes: --calibration DIR or --evaluate DIR."
        )


def _named(model: onnx.ModelProto, golden: Mapping[str, Array]) -> onnx.ModelProto:
    """Check that the graph's outputs are the model's."""
    names = [value.name for value in model.graph.output]
    if names != list(golden):
        raise ExportError(f"the graph gives {names}, the model gives {list(golden)}")
    return model
