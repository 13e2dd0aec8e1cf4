"""More targets for a bundle that is there, from its own graphs; needs neither torch nor onnx."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.targets import TargetProfile, get_target
from edgevision.engines.artifacts import ArtifactBuilder
from edgevision.engines.cache import EngineCache
from edgevision.engines.finish import finish
from edgevision.engines.summary import BuildSummary
from edgevision.errors import BundleError
from edgevision.progress import Progress, silent
from edgevision.tasks.task import proof_of

PathLike = str | os.PathLike[str]


def add_targets(
    bundle: PathLike,
    targets: Sequence[str],
    *,
    evaluate: PathLike | None = None,
    engines: PathLike | None = None,
    lean: bool = False,
    cache: EngineCache | None = None,
    progress: Progress = silent,
) -> BuildSummary:
    """Build engines for more targets from a bundle's own graph.

    What is built anywhere goes into the bundle. What is bound to its machine is finished beside it:
    this is what the command of a pending artifact runs, on the target.

    Args:
        bundle: the bundle's directory.
        targets: names of targets, or TOML files.
        evaluate: a labelled folder that finished engines are scored on.
        engines: where finished engines go; beside the bundle by default.
        lean: see `finish`.
        cache: where engines that were built before are looked for and kept; None for nowhere.
        progress: told how far the work is.

    Raises:
        ValueError: a target is unknown.
        TargetMismatchError: this machine cannot finish a target.
        BundleError: it is no bundle, it is signed, or it could not be written.
        BuildError: an engine could not be built; the bundle is untouched.
        ParityError: an engine disagrees with the golden outputs; the bundle is untouched.
    """
    asked = named_targets(targets)
    bound = [target for target in asked.values() if not target.built_here]
    anywhere = {given: target for given, target in asked.items() if target.built_here}
    opened = Bundle.open(bundle)
    summary = BuildSummary(opened, (), (), {})
    if anywhere:
        summary = _extended(opened, anywhere, cache, progress)
    done = {
        target.name: finish(
            summary.bundle,
            target,
            evaluate=evaluate,
            engines=engines,
            lean=lean,
            cache=cache,
            progress=progress,
        )
        for target in bound
    }
    return replace(summary, finished=done)


def named_targets(targets: Sequence[str]) -> dict[str, TargetProfile]:
    """Return the targets by what the user typed for each."""
    return {given: get_target(given) for given in dict.fromkeys(targets)}


def _extended(
    old: Bundle,
    asked: Mapping[str, TargetProfile],
    cache: EngineCache | None,
    progress: Progress,
) -> BuildSummary:
    """Write the bundle anew, with more artifacts in it."""
    if old.signature is not None:
        raise BundleError(
            f"'{old.root}' is signed, and what is signed is not changed. Build these targets where "
            "it was made, and sign it again"
        )
    bundle, targets = old.root, {target.name for target in asked.values()}
    stages, proofs = [], []
    with BundleWriter(bundle) as writer:
        builder = ArtifactBuilder(asked, writer, str(bundle), cache, progress)
        golden = {stage.name: old.golden(stage.name) for stage in old.manifest.stages}
        for stage in old.manifest.stages:
            writer.add(stage.graph, old.read(stage.graph))
            writer.add_golden(stage.name, *golden[stage.name])
            kept = tuple(a for a in stage.artifacts if a.target not in targets)
            for artifact in kept:
                if artifact.path is not None and artifact.path != stage.graph:
                    writer.add(artifact.path, old.read(artifact.path))
            graph = old.read(stage.graph)
            built, reports = builder.build(
                replace(stage, artifacts=kept),
                partial(_same, graph),
                golden[stage.name],
                proof=proof_of(old.manifest),
            )
            stages.append(built)
            proofs += reports
        for entry in old.manifest.files:
            if entry.path.startswith(("reports/", "task/")):
                writer.add(entry.path, old.read(entry.path))
        published = writer.publish(replace(old.manifest, stages=tuple(stages), files=()))
    return BuildSummary(published, tuple(proofs), (), builder.seconds, frozenset(builder.cached))


def _same(graph: bytes, _target: TargetProfile) -> bytes:
    return graph
