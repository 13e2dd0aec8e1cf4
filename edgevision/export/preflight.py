"""What can be known without the board: whether a target will take a graph, and if not, which node.

Rules first; then the graph as a Jetson's parser reads it, run here and held against the golden
vectors; then a real build: TensorRT-RTX parses the graph and builds it on any machine, whatever the
target. It is not the TensorRT of a Jetson and says nothing of speed; but what it refuses is refused
here, for every target.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from edgevision.bundle.directory import Bundle
from edgevision.bundle.manifest import Manifest, Stage
from edgevision.bundle.onnx_bytes import external_weights
from edgevision.bundle.targets import TargetProfile, get_target
from edgevision.bundle.tensors import Profiles, TensorSpec
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuildRequest
from edgevision.errors import BuildError, ExportError, FileReadError
from edgevision.export.as_read import Expected, check_reading, drawn_for, read_golden
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.onnx_file import plain, read_onnx
from edgevision.export.graph.qdq_rules import Finding
from edgevision.export.graph.rules import check_graph, working_bytes
from edgevision.progress import Progress, silent

# What a program needs beside the engine: the CUDA context, frames, everything else on the board.
_SHARE_OF_MEMORY = 0.5
_SAID = re.compile(r"node '(?P<name>[^']*)' \((?P<op>\w+)\): (?P<said>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one graph.

    Attributes:
        name: the stage, with the precision where it is an alternative; or the file.
        findings: errors first.
        builder: which builder proved the graph, and how long it took; why none did.
        engine_bytes: size of its engine; None if there is none.
        working_bytes: estimate of weights and activations; None where shapes are open.
    """

    name: str
    findings: tuple[Finding, ...]
    builder: str
    engine_bytes: int | None
    working_bytes: int | None

    @property
    def passed(self) -> bool:
        """Whether nothing stops it."""
        return not any(finding.severity == "error" for finding in self.findings)


def preflight(
    source: str | os.PathLike[str] | Bundle, target: str, *, progress: Progress = silent
) -> list[Checked]:
    """Check an ONNX file, or every stage of a bundle in each of its precisions, for a target.

    Raises:
        ValueError: the target is unknown.
        FileReadError: the file cannot be read, or is not an ONNX file.
        BundleError: it is a directory and not a valid bundle.
    """
    profile = get_target(target)
    if isinstance(source, Bundle) or os.path.isdir(source):
        bundle = source if isinstance(source, Bundle) else Bundle.open(source)
        return [
            _check(
                name,
                bundle.read(stage.graph),
                profile,
                stage,
                partial(read_golden, bundle, stage),
                progress,
            )
            for name, stage in _in_each_precision(bundle.manifest)
        ]
    path = Path(source)
    try:
        graph = serialized(plain(read_onnx(path), path.name))
    except ExportError as error:
        raise FileReadError(str(error)) from error
    return [_check(path.name, graph, profile, None, None, progress)]


def _in_each_precision(manifest: Manifest) -> Iterator[tuple[str, Stage]]:
    """Give all that a device may build: `finish --choose` takes the alternatives as well."""
    for stage in manifest.stages:
        yield stage.name, stage
        for other in stage.alternatives:
            yield f"{stage.name} in {other.precision}", stage.in_precision(other.precision)


def _check(
    name: str,
    graph: bytes,
    target: TargetProfile,
    stage: Stage | None,
    golden: Callable[[], Expected] | None,
    progress: Progress,
) -> Checked:
    model = _parsed(name, graph)
    profiles: Profiles = stage.profiles if stage else {}
    findings = check_graph(model, target)
    open_inputs = [spec for spec in _inputs(model) if spec not in profiles]
    if open_inputs and stage is None:
        message = f"its size is open, and an ONNX file has no profile: {', '.join(open_inputs)}"
        remedy = "check the bundle, which has one, or export it with fixed sizes"
        findings.append(Finding("the graph", "profile", message, remedy, "warning"))
        builder, engine_bytes = "no builder was asked: the sizes are open", None
    else:
        if target.flavour.has_rules:
            progress("running it as the board's parser reads it", 0, 0)
            findings += _read(model, golden, profiles)
        builder, engine_bytes, refused = _built(graph, target, profiles, stage, progress)
        findings += refused
    needed = working_bytes(model)
    findings += _memory(needed, target)
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Checked(name, tuple(findings), builder, engine_bytes, needed)


def _read(
    model: onnx.ModelProto, golden: Callable[[], Expected] | None, profiles: Profiles
) -> list[Finding]:
    try:
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception:  # the finding "types" has told of it
        return []
    return check_reading(typed, golden or partial(drawn_for, typed), profiles)


def _parsed(name: str, graph: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:  # protobuf's own errors share no class
        raise FileReadError(f"'{name}' is not an ONNX file: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise FileReadError(f"'{name}' is not an ONNX file: it has no nodes or no outputs")
    if external_weights(graph) is not None:
        raise FileReadError(
            f"'{name}' keeps weights in another file. Save it as one: "
            "onnx.save(onnx.load(NAME), NAME, save_as_external_data=False)"
        )
    return model


def _inputs(model: onnx.ModelProto) -> list[str]:
    """Return the inputs whose size is open."""
    stored = {i.name for i in model.graph.initializer}
    return [
        value.name
        for value in model.graph.input
        if value.name not in stored
        and any(not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    ]


def _built(
    graph: bytes,
    target: TargetProfile,
    profiles: Profiles,
    stage: Stage | None,
    progress: Progress,
) -> tuple[str, int | None, list[Finding]]:
    """Build with TensorRT-RTX; return what to say of it, the engine's size, and what it refused."""
    proof = target if target.flavour.on_gpu and target.portable else get_target("rtx")
    if reason := unavailable(proof):
        remedy = "pip install 'edgevision[rtx]', and check again"
        finding = Finding(
            "the graph", "unproven", f"no builder has seen it: {reason}", remedy, "warning"
        )
        return reason, None, [finding]
    with tempfile.TemporaryDirectory(prefix="edgevision-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(graph)
        request = BuildRequest(file, proof, Path(folder) / "engine.plan", profiles)
        try:
            result = build_engine(request, progress)
        except BuildError as error:
            return f"TensorRT-RTX refused it for '{proof.name}'", None, [_refusal(str(error))]
        size = result.path.stat().st_size
    payload = f"TensorRT-RTX {result.version} built it in {result.seconds:.1f} s"
    return payload, size, _contract(result.inputs, result.outputs, stage)


def _refusal(error: str) -> Finding:
    if found := _SAID.search(error):
        said, _, advice = found["said"].partition(". ")
        return Finding(f"{found['name']} ({found['op']})", "builder", said, advice)
    return Finding("the graph", "builder", error, "see the node that it names")


def _contract(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], stage: Stage | None
) -> list[Finding]:
    """Hold what the builder saw against what the manifest promises."""
    if stage is None or (tuple(inputs), tuple(outputs)) == (stage.inputs, stage.outputs):
        return []
    found = ", ".join(str(spec) for spec in (*inputs, *outputs))
    promised = ", ".join(str(spec) for spec in (*stage.inputs, *stage.outputs))
    message = f"the engine takes and gives {found}; the manifest promises {promised}"
    return [Finding("the graph", "contract", message, "build the bundle again")]


def _memory(needed: int | None, target: TargetProfile) -> list[Finding]:
    if needed is None or not target.memory_bytes:
        return []
    message = (
        f"weights and activations take about {needed / 1e9:.1f} GB by estimate; '{target.name}' "
        f"has {target.memory_bytes / 1e9:.1f} GB for everything"
    )
    remedy = "build FP16 or INT8, a smaller input, or name the module that you have"
    if needed > target.memory_bytes:
        return [Finding("the graph", "memory", message, remedy)]
    if needed > _SHARE_OF_MEMORY * target.memory_bytes:
        return [Finding("the graph", "memory", message, remedy, "warning")]
    return []
