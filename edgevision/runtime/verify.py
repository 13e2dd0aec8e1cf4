"""Proof on this machine: the golden inputs through an artifact, held against the golden outputs."""

from __future__ import annotations

import os

import numpy as np

from edgevision.bundle.directory import Bundle
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import ParityReport
from edgevision.bundle.tensors import Arrays
from edgevision.runtime.load import engines_beside, open_session
from edgevision.runtime.select import select
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import bundle_proof
from edgevision.tasks.proof import Proof


def verify(
    bundle: Bundle,
    *,
    device: str = "auto",
    engines: str | os.PathLike[str] | None = None,
) -> list[ParityReport]:
    """Run each stage's golden inputs through the artifact that this machine would use.

    Args:
        bundle: what is verified.
        device: see `edgevision.load`.
        engines: where the engines finished on this machine lie.

    Returns:
        One report per stage and output; a report that did not pass means: do not use it.

    Raises:
        BundleError: nothing fits this machine, or the golden vectors are damaged.
        RunError: the artifact does not load or run.
    """
    reports = []
    beside = engines_beside(bundle, engines)
    proof = bundle_proof(bundle.manifest)
    for stage in bundle.manifest.stages:
        inputs, outputs = bundle.golden(stage.name)
        selection = select(stage, device=device, beside=beside, bundle=bundle.root)
        choice = selection.choice
        held = stage if choice is None else stage.in_precision(choice.precision)
        with open_session(bundle, stage, selection) as session:
            name = f"{stage.name}/{selection.artifact.target}"
            reports += check_golden(session, held, inputs, outputs, proof=proof, name=name)
    return reports


def check_golden(
    session: Session,
    stage: Stage,
    inputs: Arrays,
    outputs: Arrays,
    *,
    proof: Proof,
    name: str,
) -> list[ParityReport]:
    """Run golden `inputs` (samples first) and compare with `outputs` as the task asks for."""
    samples = len(next(iter(inputs.values())))
    # Not v[i], which of a single number each is no array any more.
    answers = [session.run({k: v[i, ...] for k, v in inputs.items()}) for i in range(samples)]
    found = {spec.name: np.stack([a[spec.name] for a in answers]) for spec in stage.outputs}
    return proof.compare(outputs, found, stage.tolerances, name=name)
