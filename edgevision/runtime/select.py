"""The choice of the artifact that this machine runs, made before any engine is touched."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgevision._optional import installed_version
from edgevision.bundle.capabilities import can_run_plan
from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import Flavour, flavours
from edgevision.bundle.manifest import Artifact, Stage
from edgevision.bundle.printable import printable
from edgevision.errors import (
    MissingDependencyError,
    PendingError,
    TargetMismatchError,
    UnverifiedError,
)
from edgevision.machine.gpu import compute_capability

if TYPE_CHECKING:
    from edgevision.bundle.record import Choice, EngineFolder, Record

_BINDINGS = ("cuda.bindings", "pycuda")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has, as far as the choice depends on it.

    Attributes:
        sm: the GPU's compute capability, e.g. "8.7"; None without one.
        versions: of the installed packages that run engines, by module.
        has_binding: whether cuda-bindings or pycuda is installed.
    """

    sm: str | None
    versions: Mapping[str, str]
    has_binding: bool

    def runtime(self, flavour: Flavour) -> str | None:
        """Return the module that runs a flavour here; None if there is none."""
        return next((name for name in flavour.modules if name in self.versions), None)


class _Versions(Mapping[str, str]):
    """Of the installed packages that run engines: each is asked for if the choice depends on it."""

    def __getitem__(self, module: str) -> str:
        if module not in self:
            raise KeyError(module)
        return installed_version(module) or ""

    def __contains__(self, module: object) -> bool:
        return _is_installed(str(module))

    def __iter__(self) -> Iterator[str]:
        return (name for flavour in flavours() for name in flavour.modules if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))


def this_machine() -> Machine:
    """Ask the driver and the installed packages, importing none of them."""
    return Machine(compute_capability(), _Versions(), any(map(_is_installed, _BINDINGS)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The artifact chosen for a stage, and why not the others (target, reason).

    Attributes:
        artifact: what runs.
        on_gpu: whether it runs on a GPU.
        reason: why it was chosen.
        rejected: each other target, and why not.
        finished: the engine finished on this device, if it is one; None if it lies in the bundle.
    """

    artifact: Artifact
    on_gpu: bool
    reason: str
    rejected: tuple[tuple[str, str], ...]
    finished: EngineFolder | None = None

    @property
    def choice(self) -> Choice | None:
        """The precision that was kept on this device by measurement; None where none was."""
        record = None if self.finished is None else self.finished.record
        return None if record is None else record.choice

    def read(self, bundle: Bundle, stage: str) -> bytes:
        """Return the engine's bytes, from the bundle or from beside it, compared with its hash.

        Raises:
            BundleIntegrityError: they are not those that were proven.
        """
        if self.finished is not None:
            return self.finished.read(stage)
        assert self.artifact.path is not None  # `select` never chooses a pending one
        return bundle.read(self.artifact.path)

    def __str__(self) -> str:
        """Return one line for the choice and one for each artifact left aside."""
        lines = [f"runs '{self.artifact.target}' ({self.artifact.path}): {self.reason}"]
        lines += [f"not '{target}': {reason}" for target, reason in self.rejected]
        return "\n".join(lines)


def select(
    stage: Stage,
    *,
    device: str,
    machine: Callable[[], Machine] = this_machine,
    beside: Sequence[EngineFolder] = (),
    allow_unverified: bool = False,
    target: str | None = None,
    bundle: str | os.PathLike[str] = "BUNDLE",
) -> Selection:
    """Choose the artifact of `stage` to run on `device`, "auto", "cpu" or "cuda".

    "auto" takes an engine for this GPU if there is one, and else the CPU's. "cuda" also takes an
    ONNX file, through ONNX Runtime's CUDA provider. An engine that was finished on this machine
    comes before those in the bundle; one without a valid proof is an error and is never passed
    over, for what would run in its place is slower, and nobody would know.

    Args:
        stage: what shall run.
        device: where.
        machine: asked what is here.
        beside: engines finished on the device.
        allow_unverified: run such an engine though its proof is not valid; a warning says so.
        target: the name of the target whose artifact it shall be; None for any.
        bundle: what the commands in errors name.

    Raises:
        ValueError: the device is unknown, or the stage has no artifact of that target.
        UnverifiedError: an engine finished on this device has no valid proof.
        PendingError: what would fit is not built yet.
        TargetMismatchError: nothing fits; the message gives each reason.
        MissingDependencyError: what fits needs a package that is not installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got '{device}', expected auto, cpu or cuda")
    if target is not None:
        beside = [found for found in beside if found.folder.name == target]
        artifacts = tuple(a for a in stage.artifacts if a.target == target)
        if not beside and not artifacts:
            names = ", ".join(artifact.target for artifact in stage.artifacts)
            raise ValueError(f"target: got '{target}', the bundle has {names or 'none'}")
        stage = replace(stage, artifacts=artifacts)
    has = machine()
    rejected: dict[str, str] = {}
    packages: list[str] = []
    for found in sorted(beside, key=lambda f: f.record is None or not f.record.flavour.on_gpu):
        if reason := _elsewhere(found.record, device):
            rejected[printable(found.folder.name)] = reason
        else:
            return _finished(stage, found, has, allow_unverified=allow_unverified)
    for artifact in sorted(stage.artifacts, key=_preference):
        reason, package = _unfit(artifact, device, has)
        if not reason:
            others = [a.target for a in stage.artifacts if a is not artifact]
            left = tuple((target, rejected.get(target, "not needed")) for target in others)
            on_gpu = artifact.flavour.on_gpu or device == "cuda"
            return Selection(artifact, on_gpu, _chosen(artifact, has, on_gpu=on_gpu), left)
        rejected[artifact.target] = reason
        packages += [package] if package else []
    from edgevision.bundle.record import finish_command  # only who is told needs it

    payload = (
        "; ".join(f"{target}: {reason}" for target, reason in rejected.items()) or "it has none"
    )
    message = f"no artifact of stage '{stage.name}' runs here on device '{device}': {payload}."
    if packages:
        raise MissingDependencyError(f"{message} Install what is missing: {packages[0]}")
    pending = [a for a in stage.artifacts if a.is_pending]
    if pending and len(pending) == len(stage.artifacts):
        # Not the command that the bundle gives: people would type what a stranger wrote.
        command = finish_command(bundle, pending[0].target)
        raise PendingError(f"{message} Finish it on the target with: {command}", command=command)
    wanted = "local" if device == "cuda" else "host-cpu"
    raise TargetMismatchError(f"{message} Add one with: {finish_command(bundle, wanted)}")


def _preference(artifact: Artifact) -> tuple[bool, int]:
    """Order artifacts: those for a GPU as the bundle lists them, then the CPU's by the registry."""
    flavour = artifact.flavour
    return not flavour.on_gpu, 0 if flavour.on_gpu else flavours().index(flavour)


def _elsewhere(record: Record | None, device: str) -> str:
    """Return why a finished engine has nothing to do with `device`; empty if it has."""
    if record is None or device == "auto":
        return ""
    if record.flavour.on_gpu:
        return "runs on an NVIDIA GPU" if device == "cpu" else ""
    return "runs on the CPU" if device == "cuda" else ""


def _finished(
    stage: Stage, found: EngineFolder, has: Machine, *, allow_unverified: bool
) -> Selection:
    """Return the choice of an engine finished on this device, if its proof is valid."""
    record, reason = found.record, found.reason
    if record is not None and not reason:
        reason = _outdated(record, has)
    if record is None or (reason and not allow_unverified):
        raise UnverifiedError(
            f"the engine in '{printable(found.folder)}' is not used: {reason}. Finish it again: "
            f"{found.command}; or remove that folder to run what the bundle holds",
            command=found.command,
        )
    if reason:
        warnings.warn(
            f"the engine in '{printable(found.folder)}' runs unverified: {reason}", stacklevel=2
        )
    if record.flavour.on_gpu and not has.has_binding:
        raise MissingDependencyError(
            "no CUDA binding is installed. Install one: pip install 'edgevision[cuda]'"
        )
    file = next((f.file for f in record.stages if f.name == stage.name), "")
    artifact = Artifact(
        record.target, record.flavour, f"{found.folder.name}/{file}", record.version
    )
    proof = f"proven on this machine on {record.date}" if not reason else f"UNVERIFIED: {reason}"
    if record.choice is not None:
        proof += f"; {record.choice.precision} was chosen here, for {record.choice.reason}"
    left = tuple((a.target, "not needed") for a in stage.artifacts if a.target != record.target)
    return Selection(artifact, record.flavour.on_gpu, proof, left, found)


def _outdated(record: Record, has: Machine) -> str:
    """Return why this machine's runtime does not run an engine that was finished here."""
    title = record.flavour.title
    if (module := has.runtime(record.flavour)) is None:
        return f"{title} is not installed any more"
    here = has.versions[module]
    compatible = record.version_compatible and record.flavour.has_lean
    if not can_run_plan(record.version, here, version_compatible=compatible):
        return f"it was made by {title} {record.version}; here is {here}"
    return ""


def _unfit(artifact: Artifact, device: str, has: Machine) -> tuple[str, str]:
    """Return why `artifact` cannot run here ("" if it can), and the pip line that mends it."""
    if artifact.is_pending:
        return f"pending ({artifact.reason})", ""
    flavour = artifact.flavour
    if not flavour.on_gpu:
        return _unfit_on_cpu(flavour, device, has)
    if device == "cpu":
        return "runs on an NVIDIA GPU", ""
    if has.sm is None:
        return "needs an NVIDIA GPU and its driver; none was found", ""
    if artifact.sm and has.sm not in artifact.sm:
        return f"made for GPUs of SM {', '.join(artifact.sm)}; this one has {has.sm}", ""
    if (module := has.runtime(flavour)) is None:
        return f"{flavour.title} is not installed", flavour.remedy
    parts, here = flavour.version_parts, has.versions[module]
    if here.split(".")[:parts] != artifact.version.split(".")[:parts]:
        return f"made by {flavour.title} {artifact.version}; here is {here}", ""
    if not has.has_binding:
        return "no CUDA binding is installed", "pip install 'edgevision[cuda]'"
    return "", ""


def _unfit_on_cpu(flavour: Flavour, device: str, has: Machine) -> tuple[str, str]:
    if device == "cuda" and not flavour.gpu_if_asked:
        return "runs on the CPU", ""
    if has.runtime(flavour) is None:
        return f"{flavour.title} is not installed", flavour.remedy
    if device != "cuda":
        return "", ""
    if has.sm is None:
        return "runs on the CPU; a GPU and its driver were not found", ""
    if not has.has_binding:
        return "no CUDA binding is installed", "pip install 'edgevision[cuda]'"
    return "", ""


def _chosen(artifact: Artifact, has: Machine, *, on_gpu: bool) -> str:
    title = artifact.flavour.title
    if not on_gpu:
        return f"{title} on this CPU"
    if not artifact.flavour.on_gpu:
        return f"{title}'s CUDA provider, as device='cuda' asks"
    return f"fits this GPU (SM {has.sm}) and {title} {artifact.version}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
