"""The manifest of a bundle: dataclasses, and their JSON with every field checked on the way in.

The JSON is hostile until `Manifest.from_json` returned. No clock and no machine name goes in: the
same inputs give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgevision.bundle.flavours import Flavour
from edgevision.bundle.migrations import SCHEMA, migrate
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.reading import JsonValue, Reader, parse, read_fields, to_fields
from edgevision.bundle.tensors import ShapeProfile, TensorSpec
from edgevision.errors import BundleFormatError

MAX_BYTES = 1 << 20
"""Largest manifest that is read at all."""

MAX_FILE_BYTES = 1 << 32
"""Largest file that a manifest may list."""

Settings = Mapping[str, JsonValue]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,7}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle: its path inside, size and SHA-256."""

    path: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _match(_PATH, self.path, "file path")
        _match(_SHA256, self.sha256, f"sha256 of {self.path}")
        if not 0 <= self.size_bytes <= MAX_FILE_BYTES:
            raise BundleFormatError(
                f"manifest: '{self.path}' has {self.size_bytes} bytes; expected 0 to "
                f"{MAX_FILE_BYTES}"
            )


@dataclass(frozen=True, slots=True)
class Artifact:
    """What one target runs for a stage, or the command that makes it there.

    Attributes:
        target: name of the target.
        flavour: the runtime that executes it.
        path: the file inside the bundle; None while pending.
        version: version of the builder that made it; empty while pending.
        sm: CUDA compute capabilities it runs on; empty where none is needed.
        reason: why it is pending; empty once built.
        command: what finishes it on the target; empty once built.
    """

    target: str
    flavour: Flavour
    path: str | None
    version: str = ""
    sm: tuple[str, ...] = ()
    reason: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        _match(_NAME, self.target, "target name")
        if self.path is not None:
            _match(_PATH, self.path, "artifact path")
        elif not self.command:
            raise BundleFormatError(f"manifest: artifact '{self.target}' has no path, no command")

    @property
    def is_pending(self) -> bool:
        """Whether it must still be built on the target."""
        return self.path is None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A stage's graph in another precision, for a device that chooses by measurement.

    Attributes:
        precision: which, e.g. "fp16" in an INT8 bundle.
        graph: path of its ONNX file.
        tolerances: how far it may be from the golden outputs, by output name.
    """

    precision: str
    graph: str
    tolerances: Mapping[str, Tolerance]

    def __post_init__(self) -> None:
        _match(_NAME, self.precision, "precision")
        _match(_PATH, self.graph, "graph path")


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph of the model, and what each target runs for it.

    Attributes:
        name: the stage's name, e.g. "main".
        graph: path of the ONNX file that every engine is built from.
        inputs: what goes in, in order.
        outputs: what comes out, in order.
        profiles: bounds of the dynamic inputs, by name.
        tolerances: how far an artifact may be from the golden outputs, by output name; what
            follows from other outputs has none.
        artifacts: one per target.
        alternatives: the same in other precisions; most bundles have none.
    """

    name: str
    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerances: Mapping[str, Tolerance]
    profiles: Mapping[str, ShapeProfile] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    alternatives: tuple[Alternative, ...] = ()

    def __post_init__(self) -> None:
        _match(_NAME, self.name, "stage name")
        _match(_PATH, self.graph, "graph path")
        names = [spec.name for spec in (*self.inputs, *self.outputs)]
        if not self.inputs or not self.outputs or len(set(names)) != len(names):
            raise BundleFormatError(f"manifest: stage '{self.name}' has bad tensors: {names}")
        for bars in (self.tolerances, *(other.tolerances for other in self.alternatives)):
            if not bars or bars.keys() - {spec.name for spec in self.outputs}:
                raise BundleFormatError(
                    f"manifest: stage '{self.name}' has tolerances for {sorted(bars)}, "
                    f"expected some of its outputs"
                )
        for spec in self.inputs:
            profile = self.profiles.get(spec.name)
            shapes = (profile.minimum, profile.optimum, profile.maximum) if profile else ()
            if (spec.is_dynamic and not profile) or not all(map(spec.accepts, shapes)):
                raise BundleFormatError(f"manifest: no fitting profile for {spec}")
        targets = [artifact.target for artifact in self.artifacts]
        if len(set(targets)) != len(targets):
            raise BundleFormatError(f"manifest: stage '{self.name}' names a target twice")
        if len({other.precision for other in self.alternatives}) != len(self.alternatives):
            raise BundleFormatError(f"manifest: stage '{self.name}' names a precision twice")

    def graphs(self) -> list[str]:
        """Return the paths of its graphs in every precision that engines are built from."""
        return [self.graph, *(other.graph for other in self.alternatives)]

    def in_precision(self, precision: str) -> Stage:
        """Return it as its alternative of that precision has it; itself where it has none."""
        for other in self.alternatives:
            if other.precision == precision:
                return replace(
                    self,
                    graph=other.graph,
                    tolerances=other.tolerances,
                    artifacts=(),
                    alternatives=(),
                )
        return self


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes:
        name: the model's name.
        task: which task decodes the outputs, e.g. "semantic".
        precision: "fp32", "fp16" or "int8".
        settings: the task's own settings, checked by the task.
        stages: the graphs, in the order in which they run.
        files: every file of the bundle but the manifest; the writer fills it in.
        provenance: where it came from: source, weights' hash, package versions.
    """

    name: str
    task: str
    precision: str
    settings: Settings
    stages: tuple[Stage, ...]
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields and what they say of each other."""
        for what, text in (("name", self.name), ("task", self.task), ("precision", self.precision)):
            _match(_NAME, text, what)
        listed = {entry.path for entry in self.files}
        # Names that differ only in case are one file on some of the media that bundles travel on.
        own = {"manifest.json", "signature.json"}  # written by the bundle, listed by nobody
        if len({path.lower() for path in listed} | own) != len(self.files) + len(own):
            raise BundleFormatError("manifest: a file is listed twice")
        if not self.stages or len({s.name for s in self.stages}) != len(self.stages):
            raise BundleFormatError("manifest: stages are missing or share a name")

    def used_paths(self) -> list[str]:
        """Return the paths that stages and artifacts refer to."""
        return [
            path
            for stage in self.stages
            for path in (*stage.graphs(), *(a.path for a in stage.artifacts if a.path is not None))
        ]

    def to_json(self) -> str:
        """Return the manifest as JSON, keys in a fixed order."""
        own = to_fields(self)
        for stage in own["stages"]:
            if not stage["alternatives"]:  # as bundles without any always were
                del stage["alternatives"]
        own |= {"settings": dict(self.settings)}  # whose order may mean something
        names = ("name", "task", "precision", "settings", "provenance", "stages", "files")
        payload = {"schema": SCHEMA, **{name: own[name] for name in names}}
        return json.dumps(payload, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleFormatError: it is not a manifest of this schema.
        """
        try:
            parsed = parse(text)
        except ValueError as error:
            raise BundleFormatError(f"manifest.json is not JSON: {error}") from error
        try:
            reader = Reader(parsed, "manifest")
            fields = migrate(reader.fields, reader.integer("schema"))
            manifest = read_fields(Manifest, fields, "manifest", optional=["alternatives"])
        except ValueError as error:
            payload = str(error)[:400]
            raise BundleFormatError(
                payload if payload.startswith("manifest") else f"manifest: {payload}"
            ) from error
        listed = {entry.path for entry in manifest.files}
        for path in manifest.used_paths():
            if path not in listed:
                raise BundleFormatError(f"manifest: '{path}' is used but not listed")
        return manifest


def _match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text) or len(text) > 255:
        raise BundleFormatError(f"manifest: bad {what} {text[:80]!r}")
