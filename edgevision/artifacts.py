"""The artifacts that lie in a bundle: built for each target that any machine can build, and proven.

What is bound to its machine is finished there, by `edgevision.finish`; here it is left pending.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.bundle import BundleWriter
from edgevision.engines.builder import BuildRequest, BuildResult, unavailable
from edgevision.engines.cache import EngineCache, cached_build
from edgevision.errors import ExportError, ParityError
from edgevision.manifest import Artifact, Stage
from edgevision.parity import ParityReport
from edgevision.progress import Progress
from edgevision.runtime.session import Session
from edgevision.runtime.verify import check_golden
from edgevision.targets import Flavour, TargetProfile
from edgevision.tensors import TensorSpec

Array = npt.NDArray[np.generic]
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
        seconds: how long each target took, over all stages.
        cached: the targets whose every stage came from the cache.
    """

    targets: Mapping[str, TargetProfile]
    writer: BundleWriter
    bundle: str
    cache: EngineCache | None
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    def build(
        self,
        stage: Stage,
        graph_for: Callable[[TargetProfile], bytes],
        golden: Golden,
        *,
        task: str,
    ) -> tuple[Stage, list[ParityReport]]:
        """Return the stage with one artifact more per target, and the proofs of those that ran.

        Args:
            stage: may have artifacts, which stay.
            graph_for: the graph that a target's artifact is built from.
            golden: inputs and outputs.
            task: as what outputs are compared.

        Raises:
            BuildError: an engine could not be built.
            ExportError: the builder sees other tensors than the manifest promises.
            ParityError: an artifact disagrees with the golden outputs.
        """
        artifacts, proofs = list(stage.artifacts), []
        for given, target in self.targets.items():
            reason = unavailable(target)
            if reason or not target.built_here:
                reason = reason or "bound to its machine: it is finished there, beside the bundle"
                command = shlex.join(["edgevision", "build", self.bundle, "--target", given])
                artifacts.append(
                    Artifact(target.name, target.flavour, None, reason=reason, command=command)
                )
                continue
            suffix = "onnx" if target.flavour is Flavour.ORT else "plan"
            path = f"stages/{stage.name}/{target.name}.{suffix}"
            with tempfile.TemporaryDirectory(prefix="edgevision-") as folder:
                graph, engine = Path(folder) / "model.onnx", Path(folder) / Path(path).name
                graph.write_bytes(graph_for(target))
                request = BuildRequest(graph, target, engine, stage.profiles)
                result = cached_build(request, self.progress, cache=self.cache)
                check_tensors(stage, result, target)
                data = engine.read_bytes()
            if target.flavour is Flavour.ORT:
                proofs += _prove(stage, data, golden, target, task)
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
    stage: Stage, data: bytes, golden: Golden, target: TargetProfile, task: str
) -> list[ParityReport]:
    with Session.open(data, flavour=target.flavour, profiles=stage.profiles) as session:
        name = f"{stage.name}/{target.name}"
        reports = check_golden(session, stage, *golden, task=task, name=name)
    for report in reports:
        if not report.passed:
            raise ParityError(f"the artifact is not fit for use: {report}", report=report)
    return reports


def _listed(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in (*inputs, *outputs))
