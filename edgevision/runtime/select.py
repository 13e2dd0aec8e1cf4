"""The choice of the artifact that this machine runs, made before any engine is touched."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from edgevision.errors import MissingDependencyError, PendingError, TargetMismatchError
from edgevision.manifest import Artifact, Stage
from edgevision.targets import Flavour


@dataclass(frozen=True, slots=True)
class Selection:
    """The artifact chosen for a stage, and why not the others (target, reason)."""

    artifact: Artifact
    reason: str
    rejected: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """Return one line for the choice and one for each artifact left aside."""
        lines = [f"runs '{self.artifact.target}' ({self.artifact.path}): {self.reason}"]
        lines += [f"not '{target}': {reason}" for target, reason in self.rejected]
        return "\n".join(lines)


def select(stage: Stage, *, device: str) -> Selection:
    """Choose the artifact of `stage` to run on `device`, "auto", "cpu" or "cuda".

    Raises:
        ValueError: the device is unknown.
        PendingError: what would fit is not built yet.
        TargetMismatchError: nothing fits; the message gives each reason.
        MissingDependencyError: what fits needs a package that is not installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got '{device}', expected auto, cpu or cuda")
    rejected: list[tuple[str, str]] = []
    for artifact in sorted(stage.artifacts, key=lambda a: a.flavour is Flavour.ORT):
        reason = _unfit(artifact, device)
        if reason is None:
            rest = [a for a in stage.artifacts if a is not artifact]
            seen = dict(rejected)
            left = tuple((a.target, seen.get(a.target, "not needed")) for a in rest)
            return Selection(artifact, "ONNX Runtime on this CPU", left)
        rejected.append((artifact.target, reason))
    pending = [a for a in stage.artifacts if a.is_pending]
    reasons = "; ".join(f"{target}: {reason}" for target, reason in rejected) or "it has none"
    message = f"no artifact of stage '{stage.name}' runs here on device '{device}': {reasons}."
    missing = [a for a in stage.artifacts if not a.is_pending and a.flavour is Flavour.ORT]
    if missing and device != "cuda":
        raise MissingDependencyError(
            f"{message} Install ONNX Runtime with: pip install 'edgevision[ort]'"
        )
    if pending and len(pending) == len(stage.artifacts):
        command = pending[0].command
        raise PendingError(f"{message} Finish it on the target with: {command}", command=command)
    wanted = "local" if device == "cuda" else "host-cpu"
    raise TargetMismatchError(f"{message} Add one with: edgevision build BUNDLE --target {wanted}")


def _unfit(artifact: Artifact, device: str) -> str | None:
    """Return why `artifact` cannot run here, None if it can."""
    if artifact.is_pending:
        return f"pending ({artifact.reason})"
    if artifact.flavour is Flavour.ORT:
        if device == "cuda":
            return "runs on the CPU"
        return None if importlib.util.find_spec("onnxruntime") else "ONNX Runtime is not installed"
    if device == "cpu":
        return "runs on an NVIDIA GPU"
    return f"this edgevision does not run '{artifact.flavour.value}' engines yet"
