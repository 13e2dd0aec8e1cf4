"""A bundle as a model repository of Triton Inference Server: its config, its engine, its proof.

Source: the server's own documentation of the model repository and of the model configuration. A
stage's engine is copied byte for byte; folders without a number are left alone by the server, and
one of them has the proof.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgevision.bundle.directory import MANIFEST, SIGNATURE, Bundle
from edgevision.bundle.files import write_whole
from edgevision.bundle.manifest import Artifact, Stage
from edgevision.bundle.tensors import DYNAMIC, DType, Profiles, TensorSpec
from edgevision.errors import BundleIntegrityError, FileWriteError, TargetMismatchError

REMARK = "made by edgevision; its next run may replace this file"
_PROOF = "edgevision"
_TYPES: Mapping[DType, str] = {
    DType.BOOL: "TYPE_BOOL",
    DType.UINT8: "TYPE_UINT8",
    DType.INT8: "TYPE_INT8",
    DType.INT32: "TYPE_INT32",
    DType.INT64: "TYPE_INT64",
    DType.FLOAT16: "TYPE_FP16",
    DType.FLOAT32: "TYPE_FP32",
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the repository: its name, the target whose engine it runs, its files by path."""

    name: str
    target: str
    files: Mapping[str, bytes]


def served_models(
    bundle: Bundle, *, target: str | None = None, instances: int = 1
) -> list[ServedModel]:
    """Return a model for each stage of a bundle.

    Args:
        bundle: what is to be served.
        target: whose engine is taken; by default the first that a backend of the server runs.
        instances: executions at once, on each GPU or on the CPU.

    Raises:
        ValueError: `instances` is below 1.
        TargetMismatchError: no such engine is in the bundle, or the server has no backend for it.
        BundleIntegrityError: a file was changed since the bundle was opened.
    """
    if instances < 1:
        raise ValueError(f"instances: got {instances}, expected 1 or more")
    manifest = bundle.manifest
    models = []
    for stage in manifest.stages:
        artifact = _servable(stage, target)
        alone = len(manifest.stages) == 1
        name = manifest.name if alone else f"{manifest.name}-{stage.name}"
        assert artifact.path is not None  # `_servable` takes none that is pending
        engine = bundle.read(artifact.path)
        suffix = artifact.flavour.suffix
        files = {
            "config.pbtxt": config_text(name, stage, artifact, instances).encode(),
            f"1/model.{suffix}": engine,
        }
        if labels := _labels(manifest.settings.get("classes")):
            files["labels.txt"] = labels.encode()
        used = set(manifest.used_paths())
        kept = [entry.path for entry in manifest.files if entry.path not in used]
        files |= {f"{_PROOF}/{path}": bundle.read(path) for path in kept}
        files[f"{_PROOF}/{MANIFEST}"] = _manifest_bytes(bundle)
        if bundle.signature is not None:
            files[f"{_PROOF}/{SIGNATURE}"] = bundle.signature
        models.append(ServedModel(name, artifact.target, files))
    return models


def write_models(models: Sequence[ServedModel], repository: str | os.PathLike[str]) -> list[Path]:
    """Write models into a repository, replacing those that edgevision wrote; return their folders.

    Raises:
        FileWriteError: a model of another maker has the name, or a file cannot be written.
    """
    folders = [Path(repository) / model.name for model in models]
    for folder in folders:
        if folder.exists() and not _is_ours(folder):
            raise FileWriteError(
                f"'{folder}' is there already and not made by edgevision: give another --out"
            )
    for folder, model in zip(folders, models, strict=True):
        # The config goes last: a server that looks meanwhile sees no model without its engine. The
        # proof goes first, and tells whose folder it is if this is killed before.
        for path in sorted(model.files, key=lambda p: (p == "config.pbtxt", not _is_proof(p))):
            place = folder / PurePosixPath(path)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_whole(place, model.files[path])
            except OSError as error:
                raise FileWriteError(f"'{place}' cannot be written: {error.strerror}") from error
    return folders


def _is_proof(path: str) -> bool:
    return path.startswith(f"{_PROOF}/")


def _is_ours(folder: Path) -> bool:
    config = folder / "config.pbtxt"
    if not config.exists():  # killed before; the server itself takes a model without a config
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [""]
        return not found or _PROOF in found
    return config.is_file() and REMARK.encode() in config.read_bytes()


def _manifest_bytes(bundle: Bundle) -> bytes:
    """Return the very bytes that a signature is over."""
    content = (bundle.root / MANIFEST).read_bytes()
    if hashlib.sha256(content).hexdigest() != bundle.manifest_sha256:
        raise BundleIntegrityError(f"'{bundle.root}' was changed since it was opened")
    return content


def _servable(stage: Stage, target: str | None) -> Artifact:
    for artifact in stage.artifacts:
        is_asked = target in (None, artifact.target)
        if is_asked and artifact.flavour.triton and not artifact.is_pending:
            return artifact
    listed = ", ".join(
        f"{a.target} ({'pending' if a.is_pending else a.flavour.title})" for a in stage.artifacts
    )
    asked = "nothing" if target is None else f"target '{target}'"
    raise TargetMismatchError(
        f"stage '{stage.name}': {asked} there that Triton runs, which takes ONNX Runtime's graphs "
        f"and TensorRT's plans; the stage has {listed or 'none'}. Build one: edgevision finish "
        "BUNDLE --target NAME"
    )


def config_text(name: str, stage: Stage, artifact: Artifact, instances: int) -> str:
    """Return the `config.pbtxt` of a stage that runs as `artifact`."""
    batch = _max_batch((*stage.inputs, *stage.outputs), stage.profiles)
    kind = "KIND_GPU" if artifact.flavour.on_gpu else "KIND_CPU"
    lines = [
        f"# {REMARK}",
        f"name: {_quoted(name)}",
        f"backend: {_quoted(artifact.flavour.triton)}",
        f"default_model_filename: {_quoted(f'model.{artifact.flavour.suffix}')}",
        f"max_batch_size: {batch}",
        *(_tensor("input", spec, batch) for spec in stage.inputs),
        *(_tensor("output", spec, batch) for spec in stage.outputs),
        f"instance_group [ {{ count: {instances} kind: {kind} }} ]",
    ]
    if batch:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _max_batch(specs: Sequence[TensorSpec], profiles: Profiles) -> int:
    """Return the most that the server may batch; 0 where the engine takes its own shape alone."""
    if not all(spec.shape[:1] == (DYNAMIC,) for spec in specs):
        return 0
    return min(profiles[spec.name].maximum[0] for spec in specs if spec.name in profiles)


def _tensor(kind: str, spec: TensorSpec, batch: int) -> str:
    extents = spec.shape[1:] if batch else spec.shape
    dims = ", ".join(map(str, extents))
    return (
        f"{kind} [ {{ name: {_quoted(spec.name)} data_type: {_TYPES[spec.dtype]} "
        f"dims: [ {dims} ] }} ]"
    )


def _labels(classes: object) -> str:
    found = classes if isinstance(classes, list) else []
    names = [item["name"] if isinstance(item, dict) else item for item in found]
    return "".join(f"{str(name).splitlines()[0] if str(name) else ''}\n" for name in names)


def _quoted(text: str) -> str:
    """Return a text as protobuf's text format has it, bytes that are not plain in octal."""
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{"".join(plain)}"'
