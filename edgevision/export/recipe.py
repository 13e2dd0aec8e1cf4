"""One model's way to its graphs: FP32, then FP16, then INT8, each held against the FP32 answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision.bundle.flavours import ORT
from edgevision.bundle.forms import FP16, FP32, INT8, Form, forms_of
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.tensors import Array, DType, ShapeProfile, TensorSpec
from edgevision.errors import EngineLoadError, ExportError, ParityError, RunError
from edgevision.export.adapters.adapter import Feeds, GraphAdapter, ModelAdapter
from edgevision.export.adapters.tensors import graph_inputs, graph_outputs
from edgevision.export.agreement import hold
from edgevision.export.corners import corner_feeds
from edgevision.export.graph.capture import refusing_nan, serialized
from edgevision.export.graph.observe import typed
from edgevision.export.graph.onnx_file import is_quantized
from edgevision.export.layer_report import LayerSize
from edgevision.export.precision.brought import store_int8, taken_as_int8
from edgevision.export.precision.calibration import METHODS, CalibrationSummary
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.half_rounding import by_the_standard
from edgevision.export.precision.int8 import QuantizedModel, to_int8
from edgevision.export.precision.macs import multiply_accumulates
from edgevision.export.precision.quantizer import RECOVERED, Layer, Quantizer
from edgevision.progress import Progress, silent
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import proof_from
from edgevision.tasks.proof import Proof
from edgevision.tasks.task import get_task

_KEEP = (
    "Look at the first samples, or keep more of the net in FP32: --set keep_fp32=NODE (keep_fp32=)."
)
# Of the largest magnitude: threads may add up in another order.
_SAME = 1e-4
_SAMPLES = "the samples differ in names or shapes: {}. Give samples of one shape."
_ANSWERS = (
    "the model's answers differ in names or shapes from sample to sample: {}. An engine gives one "
    "shape: in place of what picks elements (nonzero, boolean indices) keep every element and "
    "carry a mask, or take a fixed number with topk."
)
_SCATTERS = "What scatters to one index twice may not add up: multiply by a one-hot matrix."
# Operators that torch 2.13 is known to export as something else, by what is then in the graph.
_MISEXPORTED = {
    "AveragePool": "avg_pool2d loses divisor_override: leave it out, and multiply by the kernel's "
    "size over it.",
    **dict.fromkeys(
        ("Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        "It draws random numbers: take them as an input.",
    ),
    "ScatterElements": _SCATTERS,
    "ScatterND": _SCATTERS,
}


@dataclass(frozen=True, slots=True)
class ExportedStage:
    """The graphs of one stage and their proof.

    Attributes:
        graphs: ONNX bytes by form; see `bundle.forms`.
        inputs: what goes in.
        outputs: what comes out.
        profiles: bounds of the dynamic inputs.
        golden_inputs: samples first, by input name.
        golden_outputs: the FP32 answers of the model itself, samples first, by output name.
        parity: each form and output against the golden outputs.
        tolerances: what engines of each form are allowed, by output name; wider than the bars where
            the form itself missed one.
        kept: nodes left in a wider type than asked for, with the reason: float32 in FP16 graphs,
            float in INT8 graphs.
        int8: layers that are INT8, with their signal-to-noise ratio.
        calibration: what INT8's scales came from.
        layers: what could be INT8, in the graph's order, with its size and noise.
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
    layers: Mapping[str, LayerSize]


def export_stage(
    adapter: ModelAdapter,
    *,
    precision: str,
    samples: Sequence[Feeds],
    calibration: Sequence[Feeds] | None = None,
    method: str = METHODS[0],
    recover: Collection[str] = RECOVERED,
    keep_fp32: Collection[str] = (),
    proof: Proof | None = None,
    is_strict: bool = False,
    choose_wide: Callable[[Quantizer], Mapping[str, str]] | None = None,
    progress: Progress = silent,
) -> ExportedStage:
    """Export `adapter` step by step up to `precision`.

    Args:
        adapter: the model.
        precision: "fp32", "fp16" or "int8".
        samples: a few feeds; they become the golden inputs, and FP16's ranges are scanned on them.
        calibration: typical feeds, for INT8.
        method: how INT8's ranges are found.
        recover: what INT8 tries to win accuracy back.
        keep_fp32: op types or node names that stay in float32.
        proof: how outputs are compared; by default as the adapter's task does it.
        choose_wide: names the layers that INT8 leaves float, in place of their noise.
        is_strict: refuse an FP16 or INT8 graph that misses a bar, also where it is not broken.
        progress: told how far the work is.

    Raises:
        ValueError: `choose_wide` was given of a model that brings its own Q/DQ.
        ExportError: a step is not possible.
        ParityError: a step's graph disagrees with the model.
    """
    if not samples:
        raise ExportError("no samples were given; one is the least that can prove a graph")
    proof = proof or proof_from(get_task(adapter.task), adapter.settings(), 1)
    golden_inputs = _stacked(samples)
    # Of plain tensors NaN shows in the outputs.
    with contextlib.nullcontext() if isinstance(adapter, GraphAdapter) else refusing_nan():
        given = [adapter.reference(sample) for sample in samples]
    golden_outputs = _stacked(given, of=_ANSWERS + _one_value(adapter.inputs))
    _check_numbers(golden_outputs, adapter.inputs)
    _check_repeats(adapter, samples[0], golden_outputs)
    if reason := proof.golden_reason(golden_outputs):
        raise ExportError(reason)
    progress("capturing", 0, 0)
    fp32 = _named(adapter.to_onnx(), golden_outputs)
    keep_fp32 = {*keep_fp32, *adapter.kept_fp32(fp32)}
    inputs, outputs = graph_inputs(fp32), graph_outputs(fp32)
    profiles = dict(adapter.profiles)
    if brings_int8 := is_quantized(fp32):
        if choose_wide is not None:
            raise ValueError(
                "budget: the model brings its own Q/DQ, and its layers stay as it has them"
            )
        store_int8(fp32)
    models: dict[Form, onnx.ModelProto] = {}
    kept: dict[str, str] = {}
    quantized: QuantizedModel | None = None
    for form in forms_of(precision):
        model = fp32
        if form.is_quantized:
            if quantized is None and brings_int8:
                quantized = taken_as_int8(fp32)
            elif quantized is None:
                quantized = to_int8(
                    fp32,
                    calibration or (),
                    method=method,
                    recover=recover,
                    profiles=profiles,
                    keep_float=keep_fp32,
                    min_end_snr_db=proof.min_end_snr_db,
                    wide_ends=proof.wide_ends,
                    choose_wide=choose_wide,
                    progress=progress,
                )
            model = quantized.model
        if form.wide is DType.FLOAT16:
            progress("converting to FP16", 0, 0)
            half = to_fp16(model, samples=samples, profiles=profiles, keep_fp32=keep_fp32)
            model, kept = half.model, {**kept, **half.kept_fp32}
        models[form] = model
    graphs = {form: serialized(model) for form, model in models.items()}
    # Where torch and ONNX Runtime add up in another order, a level of Q/DQ is one step off.
    is_trained = brings_int8 and not (isinstance(adapter, GraphAdapter) and adapter.is_quantized)
    exact = FP16 if is_trained else FP32
    # More levels are where float16 rounds the other way.
    held_as = {FP32: exact, **({FP16: INT8} if brings_int8 else {})}
    tolerances: dict[Form, Mapping[str, Tolerance]] = {
        form: proof.tolerances(held_as.get(form, form), golden_outputs) for form in graphs
    }
    parity: list[ParityReport] = []
    for done, (form, graph) in enumerate(graphs.items()):
        progress("checking parity", done, len(graphs))
        with _running(form, graph, profiles) as session:
            answers = _stacked([session.run(sample) for sample in samples])
            _check_shapes(form, answers, golden_outputs)
            reports, tolerances[form] = hold(
                proof,
                form,
                golden_outputs,
                answers,
                tolerances[form],
                is_strict=is_strict,
                advice=_exporter_advice(graph) if form is FP32 else _KEEP,
            )
            parity += reports
            if form is FP32 and not is_trained:
                corners = corner_feeds(fp32, samples)
                _check_corners(adapter, proof, session, graph, corners, golden_outputs)
    return ExportedStage(
        graphs={form.name: graph for form, graph in graphs.items()},
        inputs=inputs,
        outputs=outputs,
        profiles=profiles,
        golden_inputs=golden_inputs,
        golden_outputs=golden_outputs,
        parity=tuple(parity),
        tolerances={form.name: bars for form, bars in tolerances.items()},
        kept={**kept, **(quantized.kept_float if quantized else {})},
        int8=quantized.int8 if quantized else {},
        calibration=quantized.calibration if quantized else None,
        layers=_sizes(fp32, quantized.layers, samples[0], profiles) if quantized else {},
    )


def _sizes(
    fp32: onnx.ModelProto,
    layers: Mapping[str, Layer],
    sample: Feeds,
    profiles: Mapping[str, ShapeProfile],
) -> dict[str, LayerSize]:
    if not layers:
        return {}
    macs = multiply_accumulates(typed(fp32), sample, dict(profiles))
    return {
        name: LayerSize(layer.op_type, macs.get(name, 0), layer.snr_db)
        for name, layer in layers.items()
    }


@contextlib.contextmanager
def _running(form: Form, graph: bytes, profiles: Mapping[str, ShapeProfile]) -> Iterator[Session]:
    try:
        with Session.open(by_the_standard(graph), flavour=ORT, profiles=profiles) as session:
            yield session
    except (EngineLoadError, RunError) as error:
        advice = "" if form is FP32 else f" {_KEEP}"
        raise ExportError(
            f"the {form} graph cannot be proven, for ONNX Runtime does not run it: {error}{advice}"
        ) from error


def _check_shapes(form: Form, answers: Mapping[str, Array], golden: Mapping[str, Array]) -> None:
    for name, values in answers.items():
        if values.shape != golden[name].shape:
            raise ExportError(
                f"the {form} graph gives '{name}' as {list(values.shape[1:])}, the model as "
                f"{list(golden[name].shape[1:])}: its shape depends on what torch does not export"
            )


def _check_corners(
    adapter: ModelAdapter,
    proof: Proof,
    session: Session,
    graph: bytes,
    corners: Mapping[str, Feeds],
    golden: Mapping[str, Array],
) -> None:
    """Hold the FP32 graph at the ends of its inputs, where a pass that dropped something shows.

    Narrower forms, and what was trained with rounding, are not held there: on a frame of one value
    all pixels of two nearly equal classes change at once, which is a fault of the frame.
    """
    for title, feeds in corners.items():
        try:
            wanted = adapter.reference(feeds)
        except Exception:  # the user's code: a model that cannot run there promises nothing
            continue
        answers = session.run(feeds)
        # Beside the samples, whose range is that of the output.
        both = _beside(golden, wanted), _beside(golden, answers)
        for report in proof.compare_corners(*both, FP32, name=FP32.name):
            if not report.passed:
                raise ParityError(
                    f"the fp32 graph does what the model does on the samples, and not on an "
                    f"input {title}: {report}. {_exporter_advice(graph)}",
                    report=report,
                )


def _beside(golden: Mapping[str, Array], one: Mapping[str, Array]) -> dict[str, Array]:
    """Return golden answers with one more behind them; it alone where their shapes differ."""
    return {
        name: np.concatenate([golden[name], array[np.newaxis]])
        if golden[name].shape[1:] == array.shape
        else array[np.newaxis]
        for name, array in one.items()
    }


def _exporter_advice(graph: bytes) -> str:
    """Return who changed an FP32 graph, and what to write in place of what is known to go wrong."""
    there = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    known = " ".join(advice for op, advice in _MISEXPORTED.items() if op in there)
    return (
        "Precision has no part in it: what exported the module, or a pass behind it, wrote "
        f"something else. {known or 'Build parts of the module to find which.'}"
    )


def _stacked(samples: Sequence[Mapping[str, Array]], *, of: str = _SAMPLES) -> dict[str, Array]:
    try:
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    except (KeyError, ValueError) as error:
        raise ExportError(of.format(error)) from error


def _check_numbers(golden: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> None:
    """Refuse a model that gives NaN, of which every graph would agree, or what is no answer."""
    for name, values in golden.items():
        if values.dtype.kind == "c" or not values.size:
            found = f"{values.dtype}{list(values.shape[1:])}"
            raise ExportError(
                f"output '{name}' is {found}, which no target gives. Return real numbers, at least "
                "one; of complex ones torch.view_as_real"
            )
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ExportError(
                f"the model itself gives NaN in output '{name}' on a sample. Look at that sample "
                "and at the weights. Where inputs were drawn, give some that fit: --samples DIR "
                f"(samples=), or their ends: {_ranges_to_type(inputs)} (ranges=)."
            )


def _one_value(inputs: Sequence[TensorSpec]) -> str:
    """Return what to type where shapes depend on inputs that may be sizes; empty without such."""
    names = [spec.name for spec in inputs if not spec.dtype.value.startswith("float")]
    flags = " ".join(f"--range {name}=N:N" for name in names)
    text = f" Where {', '.join(names)} say sizes, give all samples one value: {flags} (ranges=)."
    return text.replace("{", "{{").replace("}", "}}") if names else ""


def _ranges_to_type(inputs: Sequence[TensorSpec]) -> str:
    floats = [spec.name for spec in inputs if spec.dtype.value.startswith("float")]
    return " ".join(f"--range {name}=LOW:HIGH" for name in floats or ["NAME"])


def _check_repeats(adapter: ModelAdapter, sample: Feeds, golden: Mapping[str, Array]) -> None:
    """Refuse a model that answers otherwise when it runs again: no graph could agree with it."""
    for name, values in adapter.reference(sample).items():
        before, now = golden[name][0].astype(np.float64), values.astype(np.float64)
        near = _SAME * float(np.abs(before[np.isfinite(before)]).max(initial=0))
        if not np.allclose(before, now, rtol=0, atol=near, equal_nan=True):
            raise ExportError(
                f"the model answers otherwise when it runs twice on one sample (output '{name}'): "
                "something in it is random, or remembers, also in evaluation. Give dropout "
                "training=self.training, take noise as an input, and keep no state between calls."
            )


def _named(model: onnx.ModelProto, golden: Mapping[str, Array]) -> onnx.ModelProto:
    """Check that the graph's outputs are the model's."""
    names = [value.name for value in model.graph.output]
    if names != list(golden):
        raise ExportError(f"the graph gives {names}, the model gives {list(golden)}")
    return model
