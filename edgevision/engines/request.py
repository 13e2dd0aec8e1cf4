"""What to build, what comes of it, and what a builder is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgevision.bundle.flavours import Flavour, flavour
from edgevision.bundle.manifest import (
    profile_from_json,
    profile_to_json,
    spec_from_json,
    spec_to_json,
)
from edgevision.bundle.targets import TargetProfile
from edgevision.bundle.tensors import ShapeProfile, TensorSpec
from edgevision.progress import Progress

_MAX_LEVEL = 5


@dataclass(frozen=True, slots=True)
class BuilderKnobs:
    """What a user may ask of TensorRT's builder; those for CPUs have no such knobs.

    Attributes:
        optimization_level: 0 (quick build) to 5; None for the builder's default.
        workspace_bytes: most memory that the builder may use for tactics; None for its default,
            which on a device is half of what is free.
    """

    optimization_level: int | None = None
    workspace_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        level, workspace = self.optimization_level, self.workspace_bytes
        if level is not None and (type(level) is not int or not 0 <= level <= _MAX_LEVEL):
            raise ValueError(
                f"optimization_level: got {level!r}, expected a whole number, 0 (quick) to "
                f"{_MAX_LEVEL}"
            )
        if workspace is not None and (type(workspace) is not int or workspace < 1):
            raise ValueError(
                f"workspace_bytes: got {workspace!r}, expected a whole number, at least 1"
            )

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return self != BuilderKnobs()

    def of(self, target: TargetProfile) -> BuilderKnobs:
        """Return what holds for a target's builder: all of it, or nothing."""
        return self if target.flavour.on_gpu else BuilderKnobs()

    def check_used(self, targets: Iterable[TargetProfile]) -> None:
        """Refuse knobs that no target has: nobody would see that they did nothing.

        Raises:
            ValueError: something was asked for, and no target is TensorRT's.
        """
        listed = list(targets)
        if self and not any(self.of(target) for target in listed):
            given = [name for name, value in asdict(self).items() if value is not None]
            raise ValueError(
                f"{', '.join(given)}: only TensorRT's builder has it, and the targets are "
                f"{', '.join(target.name for target in listed)}. Leave it out, or add a target "
                "such as rtx or local"
            )


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        graph: the ONNX file.
        target: what for.
        output: where the artifact goes; a file there is replaced only on success.
        profiles: bounds of the dynamic inputs, by name.
        workspace_bytes: most memory that the builder may use for tactics; None for its default.
        optimization_level: 0 (quick build) to 5; None for the builder's default.
        version_compatible: a plan of full TensorRT that later versions run, too; without the lean
            runtime inside, which the device must have then.
        timing_cache: a file of measured kernels that full TensorRT reads and adds to.
    """

    graph: Path
    target: TargetProfile
    output: Path
    profiles: Mapping[str, ShapeProfile] = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        BuilderKnobs(self.optimization_level, self.workspace_bytes)

    def to_json(self) -> str:
        """Return the request as JSON."""
        return json.dumps(
            {
                "graph": str(self.graph),
                "target": asdict(self.target) | {"flavour": self.target.flavour.name},
                "output": str(self.output),
                "profiles": {name: profile_to_json(p) for name, p in self.profiles.items()},
                "workspace_bytes": self.workspace_bytes,
                "optimization_level": self.optimization_level,
                "version_compatible": self.version_compatible,
                "timing_cache": str(self.timing_cache) if self.timing_cache else None,
            }
        )

    @staticmethod
    def from_json(text: str) -> BuildRequest:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        target = fields.pop("target")
        versions = target.pop("versions")
        timing_cache = fields.pop("timing_cache")
        return BuildRequest(
            graph=Path(fields.pop("graph")),
            target=TargetProfile(
                flavour=flavour(target.pop("flavour")),
                versions=None if versions is None else (versions[0], versions[1]),
                sm=tuple(target.pop("sm")),
                **target,
            ),
            output=Path(fields.pop("output")),
            profiles={n: profile_from_json(p, n) for n, p in fields.pop("profiles").items()},
            timing_cache=Path(timing_cache) if timing_cache else None,
            **fields,
        )


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished artifact.

    Attributes:
        path: the file.
        flavour: the runtime that executes it.
        version: the builder's version.
        sm: CUDA compute capabilities that it runs on; empty where none is needed.
        inputs: what goes in, as the builder saw it.
        outputs: what comes out, as the builder saw it.
        seconds: how long the build took, the start of its process included.
        log: what the builder said; the end of it where it said much.
        cached: whether it was built earlier, and only fetched.
        layers: how many layers compute in each type, e.g. {"int8": 52}, by the engine's own
            inspector; None where the builder offers none here.
    """

    path: Path
    flavour: Flavour
    version: str
    sm: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seconds: float = 0.0
    log: str = ""
    cached: bool = False
    layers: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, object]:
        """Return what only the builder knows as JSON."""
        return {
            "version": self.version,
            "sm": list(self.sm),
            "inputs": [spec_to_json(spec) for spec in self.inputs],
            "outputs": [spec_to_json(spec) for spec in self.outputs],
            "layers": None if self.layers is None else dict(self.layers),
        }

    @staticmethod
    def from_json(fields: Mapping[str, Any], path: Path, made_for: Flavour) -> BuildResult:
        """Read what `to_json` wrote; the caller knows what it was made for."""
        return BuildResult(
            path=path,
            flavour=made_for,
            version=fields["version"],
            sm=tuple(fields["sm"]),
            inputs=tuple(spec_from_json(spec, "input") for spec in fields["inputs"]),
            outputs=tuple(spec_from_json(spec, "output") for spec in fields["outputs"]),
            layers=_layers(fields["layers"]),
        )


def _layers(payload: object) -> Mapping[str, int] | None:
    if payload is None:
        return None
    if not isinstance(payload, dict) or not all(type(count) is int for count in payload.values()):
        raise TypeError("layers: expected counts by type")
    return {str(kind): count for kind, count in payload.items()}


class Builder(Protocol):
    """Builds artifacts of one flavour.

    `unavailable` runs in the user's process and must stay light; `build` runs in the child, once
    per process, and may crash it. `build` leaves `seconds` and `log` of its result to the parent.
    """

    @property
    def flavour(self) -> Flavour:
        """The runtime that executes what this builds."""

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""

    def version(self) -> str | None:
        """Return the version that would build here, imported or not; None if it is not known."""

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: the graph cannot be built; says which node and what to do.
        """
