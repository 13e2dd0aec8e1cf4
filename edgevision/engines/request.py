"""What to build, what comes of it, and what a builder is."""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgevision._optional import installed_version
from edgevision.bundle.flavours import Flavour
from edgevision.bundle.reading import read_fields, to_fields
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
        BuilderKnobs(self.optimization_level, self.workspace_bytes)

    def to_json(self) -> str:
        """Return the request as JSON."""
        return json.dumps(to_fields(self))

    @staticmethod
    def from_json(text: str) -> BuildRequest:
        """Read what `to_json` wrote."""
        return read_fields(BuildRequest, json.loads(text), "request")


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
        fields = to_fields(self)
        return {name: fields[name] for name in ("version", "sm", "inputs", "outputs", "layers")}

    @staticmethod
    def from_json(fields: Mapping[str, Any], path: Path, made_for: Flavour) -> BuildResult:
        """Read what `to_json` wrote; the caller knows what it was made for.

        Raises:
            ValueError: it is something else.
        """
        known = {"path": str(path), "flavour": made_for.name}
        later = ("seconds", "log", "cached")
        return read_fields(BuildResult, {**fields, **known}, "result", optional=later)


class Builder(ABC):
    """Builds artifacts of one flavour.

    `unavailable` runs in the user's process and must stay light; `build` runs in the child, once
    per process, and may crash it. `build` leaves `seconds` and `log` of its result to the parent.
    """

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        if importlib.util.find_spec(self.flavour.modules[0]) is None:
            return f"{self.flavour.title} is not installed; {self.flavour.remedy}"
        return None

    def version(self) -> str | None:
        """Return the version that would build here, imported or not; None if it is not known."""
        return installed_version(self.flavour.modules[0])

    @abstractmethod
    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: the graph cannot be built; says which node and what to do.
            MissingDependencyError: what builds is not installed.
        """
