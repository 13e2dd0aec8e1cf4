"""The artifacts that lie in a bundle: built for each target that any machine can build, and proven.

What is bound to its machine is finished there, by `engines.finish`; here it is left pending.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgevision.bundle.directory import BundleWriter
from edgevision.bundle.manifest import Artifact, Stage
from edgevision.bundle.parity import ParityReport
from edgevision.bundle.record import finish_command
from edgevision.bundle.targets import TargetProfile
from edgevision.bundle.tensors import Array, TensorSpec
from edgevision.engines.cache import EngineCache, cached_build
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuilderKnobs, BuildRequest, BuildResult
from edgevision.errors import ExportError, ParityError
from edgevision.progress import Progress
from edgevision.runtime.session import Session
from edgevision.runtime.verify import check_golden
from edgevision.tasks.proof import Proof

Golden = tuple[Mapping[str, Array], Mapping[str, Array]]


@dataclass(slots=True)
class ArtifactBuilder:
    """Builds the artifacts of a bundle's stages, and counts what it took.

    Attributes:
        targets: by what the user typed for each.
        writer: of the bundle, open.
        bundle: the bundle as a command names it.
        cache: engines that were built before; None for nowhere.
        progress: told how far the builds are.
        knobs: what was asked of TensorRT's builder.
        seconds: how long each target took, over all stages.
        cached: the targets whose every stage came from the cache.
    """

    targets: Mapping[str, TargetProfile]
    writer: BundleWriter
    bundle: str
    cache: EngineCache | None
    progress: Progress
    knobs: BuilderKnobs = field(default_factory=BuilderKnobs)
    seconds: dict[str, float] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    def build(
        self,
        stage: Stage,
        graph_for: Callable[[TargetProfile], bytes],
        golden: Golden,
        *,
        proof: Proof,
    ) -> tuple[Stage, list[ParityReport]]:
        """Return the stage with one artifact more per target, and the proofs of those that ran.

        Args:
            stage: may have artifacts, which stay.
            graph_for: the graph that a target's artifact is built from.
            golden: inputs and outputs.
            proof: how outputs are compared.

        Raises:
            BuildError: an engine could not be built.
            ExportError: the builder sees other tensors than the manifest promises.
            ParityError: an artifact disagrees with the golden outputs.
        """
        artifacts, proofs = list(stage.artifacts), []
        for given, target in self.targets.items():
            reason = unavailable(target)
            if reason or not target.portable:
                reason = reason or "bound to its machine: it is finished there"
                command = finish_command(self.bundle, given)
                artifacts.append(
                    Artifact(target.name, target.flavour, None, reason=reason, command=command)
                )
                continue
            path = f"stages/{stage.name}/{target.name}.{target.flavour.suffix}"
            with tempfile.TemporaryDirectory(prefix="edgevision-") as folder:
                graph, engine = Path(folder) / "model.onnx", Path(folder) / Path(path).name
                graph.write_bytes(graph_for(target))
                knobs = self.knobs.of(target)
                request = BuildRequest(
                    graph, target, engine, stage.profiles, knobs.workspace_bytes,
                    knobs.optimization_level,
                )  # fmt: skip
                result = cached_build(request, self.progress, cache=self.cache)
                check_tensors(stage, result, target)
                data = engine.read_bytes()
            if not target.flavour.on_gpu:
                proofs += _prove(stage, data, golden, target, proof)
            self.writer.add(path, data)
            artifacts.append(Artifact(target.name, target.flavour, path, result.version, result.sm))
            self._note(target.name, result)
        return replace(stage, artifacts=tuple(artifacts)), proofs

    def _note(self, target: str, result: BuildResult) -> None:
        is_first = target not in self.seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + result.seconds
        if not result.cached:
            self.cached.discard(target)
        elif is_first:
            self.cached.add(target)


def check_tensors(stage: Stage, result: BuildResult, target: TargetProfile) -> None:
    """Hold what the builder saw against what the manifest promises.

    Raises:
        ExportError: it differs.
    """
    if (result.inputs, result.outputs) != (stage.inputs, stage.outputs):
        found = _listed(result.inputs, result.outputs)
        wanted = _listed(stage.inputs, stage.outputs)
        raise ExportError(f"the builder for '{target.name}' sees {found}; the graph has {wanted}")


def _prove(
    stage: Stage, data: bytes, golden: Golden, target: TargetProfile, proof: Proof
) -> list[ParityReport]:
    with Session.open(data, flavour=target.flavour, profiles=stage.profiles) as session:
        name = f"{stage.name}/{target.name}"
        reports = check_golden(session, stage, *golden, proof=proof, name=name)
    for report in reports:
        if not report.passed:
            raise ParityError(f"the artifact is not fit for use: {report}", report=report)
    return reports


def _listed(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in (*inputs, *outputs))
