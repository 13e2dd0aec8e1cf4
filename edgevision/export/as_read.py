"""Runs what a board's parser makes of a graph, and holds it against what the graph shall give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import ORT
from edgevision.bundle.forms import FP16
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import Array, Profiles
from edgevision.errors import EdgeVisionError
from edgevision.export.adapters.tensors import graph_inputs
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.qdq_rules import Finding
from edgevision.export.graph.reading import SOURCE, Difference, read_as_parsed
from edgevision.export.precision.half_rounding import by_the_standard
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import bundle_proof
from edgevision.tasks.proof import Proof
from edgevision.tasks.task import get_task

_DRAWN = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """What a graph shall give.

    Attributes:
        inputs: samples first, by input name.
        outputs: samples first, by output name.
        tolerances: how far an answer may be from them, by output name.
        proof: how outputs are compared.
        title: what the samples are called.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tolerances: Mapping[str, Tolerance]
    proof: Proof
    title: str


def read_golden(bundle: Bundle, stage: Stage) -> Expected:
    """Return the golden vectors of a stage, and how far its precision may be from them."""
    inputs, outputs = bundle.golden(stage.name)
    proof = bundle_proof(bundle.manifest)
    return Expected(inputs, outputs, stage.tolerances, proof, "the golden vectors")


def drawn_for(model: onnx.ModelProto) -> Expected:
    """Return what a file's graph gives on drawn inputs; its sizes must be fixed.

    Raises:
        EdgeVisionError: it cannot be run on them.
    """
    task = get_task("tensors")
    feeds, _ = task.draw(graph_inputs(model), {}, {}, _DRAWN, purpose="golden")
    inputs = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    outputs = _answers(model, inputs, {})
    return Expected(inputs, outputs, task.tolerances(FP16, outputs), task, "drawn inputs")


def check_reading(
    model: onnx.ModelProto, expected: Callable[[], Expected], profiles: Profiles
) -> list[Finding]:
    """Return the operators that a parser reads so that the answers are others.

    Args:
        model: a graph with the types of its tensors, as shape inference leaves it.
        expected: gives what it shall give; asked where something is read otherwise.
        profiles: bounds of its open inputs.
    """
    _, differences = read_as_parsed(model)
    if not differences:
        return []
    try:
        wanted = expected()
    except EdgeVisionError as error:
        message = f"ONNX Runtime cannot run it, so its reading was not tried: {str(error)[:200]}"
        remedy = "build a bundle on samples that fit, and check that"
        return [Finding("the graph", "reading", message, remedy, "warning")]
    together = _difference_reason(model, wanted, profiles, None)
    if not together:
        return []
    by_op: dict[str, list[Difference]] = {}
    for difference in differences:
        by_op.setdefault(difference.op_type, []).append(difference)
    reasons = {op: _difference_reason(model, wanted, profiles, op) for op in by_op}
    # Where none alone is to blame, all are.
    guilty = [op for op, reason in reasons.items() if reason] or list(by_op)
    return [
        Finding(
            f"{difference.node} ({op})",
            "reading",
            f"{SOURCE} reads it otherwise: {difference.message}; read so, "
            f"{reasons[op] or together}",
            difference.remedy,
        )
        for op in guilty
        for difference in by_op[op]
    ]


def _difference_reason(
    model: onnx.ModelProto, expected: Expected, profiles: Profiles, op: str | None
) -> str:
    """Return how the reading of one operator, or of all, fails; "" if it does not."""
    read, _ = read_as_parsed(model, only=None if op is None else {op})
    try:
        found = _answers(read, expected.inputs, profiles)
        reports = expected.proof.compare(
            expected.outputs, found, expected.tolerances, name=expected.title
        )
    except (EdgeVisionError, ValueError) as error:
        return f"the graph does not fit together: {str(error)[:200]}"
    return next((str(report) for report in reports if not report.passed), "")


def _answers(
    model: onnx.ModelProto, inputs: Mapping[str, Array], profiles: Profiles
) -> dict[str, Array]:
    samples = len(next(iter(inputs.values())))
    graph = by_the_standard(serialized(model))
    with Session.open(graph, flavour=ORT, profiles=profiles) as session:
        found = [session.run({k: v[i, ...] for k, v in inputs.items()}) for i in range(samples)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}
