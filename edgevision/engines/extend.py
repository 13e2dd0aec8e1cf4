"""`finish`: engines for a bundle that is there, from its own graphs; needs neither torch nor onnx.

What any machine can build is written into the bundle. What is bound to its machine is built, proven
and recorded outside it, see `engines.finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.files import PathLike
from edgevision.bundle.targets import TargetProfile, get_target
from edgevision.bundle.trust import Trust
from edgevision.engines.artifacts import ArtifactBuilder
from edgevision.engines.cache import EngineCache
from edgevision.engines.choose import Measure
from edgevision.engines.finish import finish_target
from edgevision.engines.request import BuilderKnobs
from edgevision.engines.summary import BuildSummary
from edgevision.errors import BundleError
from edgevision.progress import Progress, silent
from edgevision.tasks.decoders import bundle_proof


def finish(
    bundle: Bundle | PathLike,
    targets: str | Sequence[str],
    *,
    evaluate: PathLike | None = None,
    engines: PathLike | None = None,
    require_signature: PathLike | Sequence[PathLike] | None = None,
    minimum_version: int = 0,
    expected_name: str | None = None,
    lean: bool = False,
    optimization_level: int | None = None,
    workspace_bytes: int | None = None,
    cache: EngineCache | None = None,
    measure: Measure | None = None,
    progress: Progress = silent,
) -> BuildSummary:
    """Build engines for a bundle's targets; on a device, the last step before `load`.

    An engine that any machine can build goes into the bundle. One that is bound to its machine is
    built and proven outside it: this is what the command of a pending artifact runs, on the target.
    One that was finished before and is still valid is left as it is, unless it shall be evaluated
    or `optimization_level` or `workspace_bytes` is given.

    Args:
        bundle: the bundle's directory, or an open bundle.
        targets: a target's name, or several; a name may be a TOML file of your own.
        evaluate: a labelled folder that finished engines are scored on.
        engines: where finished engines go; by default the state directory of this device
            (EDGEVISION_STATE), where `load` looks for them.
        require_signature: as in `edgevision.load`; nothing goes to a builder before it is checked.
        minimum_version: see `edgevision.load`.
        expected_name: see `edgevision.load`.
        lean: build plans that the lean runtime and later TensorRT versions run.
        optimization_level: how long TensorRT's builder searches, 0 (quick) to 5.
        workspace_bytes: most memory that TensorRT's builder may use for tactics; by default half
            of what is free on the device.
        cache: where engines that were built before are looked for and kept; None for nowhere.
        measure: builds both precisions of a bundle that holds two, and keeps the faster one that
            passes the accuracy gate, beside the bundle; with this function to measure them, which
            is `edgevision.bench.gate.choice.side_by_side`. None for the bundle's own precision.
        progress: told how far the work is.

    Raises:
        ValueError: a target is unknown, or an argument has no effect on any of the targets.
        TargetMismatchError: this machine cannot finish a target.
        BundleError: it is not a bundle, it is signed, or it could not be written.
        BuildError: an engine could not be built; the bundle is untouched.
        ParityError: an engine disagrees with the golden outputs; the bundle is untouched.

    Example:
        >>> edgevision.finish("road.ev", "local", evaluate="val/")  # doctest: +SKIP
    """
    asked = named_targets(targets)
    knobs = BuilderKnobs(optimization_level, workspace_bytes)
    knobs.check_used(asked.values())
    # What one machine chose holds for no other: it never goes into the bundle.
    is_bound = {given: measure is not None or not t.portable for given, t in asked.items()}
    bound = [target for given, target in asked.items() if is_bound[given]]
    anywhere = {given: target for given, target in asked.items() if not is_bound[given]}
    on_device = {"evaluate": evaluate is not None, "engines": engines is not None, "lean": lean}
    if not bound and any(on_device.values()):
        unused = ", ".join(name for name, is_given in on_device.items() if is_given)
        raise ValueError(
            f"{unused}: only for engines that are bound to their machine; an engine for "
            f"{', '.join(anywhere)} lies in the bundle. Leave it out"
        )
    trust = Trust.of(require_signature, minimum_version, expected_name)
    opened = trust.open(bundle)
    summary = BuildSummary(opened, (), (), {})
    if anywhere:
        summary = _extended(opened, anywhere, knobs, cache, progress)
    done = {
        target.name: finish_target(
            summary.bundle,
            target,
            evaluate=evaluate,
            engines=engines,
            lean=lean,
            knobs=knobs.of(target),
            cache=cache,
            measure=measure,
            progress=progress,
        )
        for target in bound
    }
    trust.keep(opened)
    return replace(summary, finished=done)


def named_targets(targets: str | Sequence[str]) -> dict[str, TargetProfile]:
    """Return the targets by what the user typed for each.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    names = [targets] if isinstance(targets, str) else targets
    if not names:
        raise ValueError("targets: none given; host-cpu runs anywhere")
    return {given: get_target(given) for given in dict.fromkeys(names)}


def _extended(
    old: Bundle,
    asked: Mapping[str, TargetProfile],
    knobs: BuilderKnobs,
    cache: EngineCache | None,
    progress: Progress,
) -> BuildSummary:
    """Write the bundle again, with more artifacts in it."""
    if old.signature is not None:
        raise BundleError(
            f"'{old.root}' is signed, and what is signed is not changed. Build these targets where "
            "it was made, and sign it again"
        )
    bundle, targets = old.root, {target.name for target in asked.values()}
    stages, proofs = [], []
    with BundleWriter(bundle) as writer:
        builder = ArtifactBuilder(asked, writer, str(bundle), cache, progress, knobs)
        golden = {stage.name: old.golden(stage.name) for stage in old.manifest.stages}
        for stage in old.manifest.stages:
            for path in stage.graphs():
                writer.add(path, old.read(path))
            writer.add_golden(stage.name, *golden[stage.name])
            kept = tuple(a for a in stage.artifacts if a.target not in targets)
            for artifact in kept:
                if artifact.path is not None and artifact.path not in stage.graphs():
                    writer.add(artifact.path, old.read(artifact.path))
            graph = old.read(stage.graph)
            built, reports = builder.build(
                replace(stage, artifacts=kept),
                partial(_same, graph),
                golden[stage.name],
                proof=bundle_proof(old.manifest),
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
