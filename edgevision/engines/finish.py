"""The last step, on the device: engines bound to this machine are built, proven and recorded.

Each stage's graph is built in a child process (or taken from the cache, which is how a killed build
goes on), the golden vectors and, if asked for, the task's metric run on that very engine, and only
then is the record written that lets `load` use it. Everything lies beside the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import PathLike, staged, write_whole
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import ParityReport
from edgevision.bundle.record import (
    RECORD,
    Choice,
    EngineFile,
    EngineFolder,
    Record,
    engines_folder,
    finish_command,
    finished,
)
from edgevision.bundle.state import authenticate
from edgevision.bundle.targets import TargetProfile
from edgevision.engines.artifacts import check_tensors
from edgevision.engines.cache import EngineCache, cached_build, timing_cache_file
from edgevision.engines.choose import UNSETTLED, Candidate, Measure, choose, precisions_of
from edgevision.engines.held_folder import held_folder
from edgevision.engines.layer_precision import precision_shortfall
from edgevision.engines.registry import builder_for, unavailable
from edgevision.engines.request import BuilderKnobs, BuildRequest, BuildResult
from edgevision.errors import (
    BundleError,
    FileReadError,
    InsufficientMemoryError,
    ParityError,
    TargetMismatchError,
)
from edgevision.machine.identity import machine_name
from edgevision.machine.jetson import read_memory
from edgevision.metrics.metric import Predict, judge, predictor, score_task
from edgevision.progress import Progress, silent
from edgevision.runtime.backends.program import Program, make_program
from edgevision.runtime.device.cuda.device import cuda_device
from edgevision.runtime.device.device import Device
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.verify import check_golden
from edgevision.tasks.decoders import bundle_decoder, bundle_proof, state_names
from edgevision.tasks.task import get_task

# The builder gets this share of the free memory; the rest is for weights, the context and others.
_SHARE_OF_FREE = 0.5
_MIN_WORKSPACE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Finish:
    """What was finished.

    Attributes:
        folder: where the engines and the record lie.
        record: what was proven.
        seconds: how long each stage took now; empty if everything was there already.
        cached: the stages that came from the cache.
    """

    folder: Path
    record: Record
    seconds: Mapping[str, float]
    cached: tuple[str, ...]


def finish_target(
    bundle: Bundle,
    target: TargetProfile,
    *,
    evaluate: PathLike | None = None,
    engines: PathLike | None = None,
    lean: bool = False,
    knobs: BuilderKnobs | None = None,
    cache: EngineCache | None = None,
    measure: Measure | None = None,
    progress: Progress = silent,
) -> Finish:
    """Build, prove and record the engines of a target that is bound to this machine.

    What was finished before and is still valid is left as it is, unless it shall be evaluated or
    knobs are given: a record does not say with which ones an engine was built.

    The arguments are those of `edgevision.finish`; `measure` also takes a target that is built
    everywhere, where this machine shall choose.

    Raises:
        ValueError: the target is built everywhere, its flavour has no lean runtime or no knobs, or
            there is nothing to choose.
        TargetMismatchError: this machine cannot build for it.
        BuildError: an engine could not be built; InsufficientMemoryError for too little memory.
        ParityError: an engine is not fit for use; its record says why, and it is never loaded.
        BundleError: the folder, or this device's key, cannot be written.
    """
    if target.portable and measure is None:
        raise ValueError(f"'{target.name}' is built anywhere and lies in the bundle")
    if lean and not target.flavour.has_lean:
        raise ValueError(f"lean: there is a lean runtime only of TensorRT, not for '{target.name}'")
    if reason := unavailable(target):
        raise TargetMismatchError(
            f"'{target.name}' cannot be finished on this machine: {reason}. On the machine that "
            f"has it: {finish_command(bundle.root, target.name)}"
        )
    knobs = knobs or BuilderKnobs()
    knobs.check_used([target])
    if measure is not None:
        precisions_of(bundle)
    try:
        folder = engines_folder(bundle.root, engines) / target.name
        authenticate(b"")  # before an hour of building, which nothing would prove
    except OSError as error:
        raise BundleError(
            f"this device cannot prove what it finishes: {error.strerror or error}. Set "
            "EDGEVISION_STATE to a folder that only this user may write"
        ) from error
    with held_folder(folder, progress, is_named=engines is not None):
        before = next(
            (f for f in finished(bundle, engines, machine_name) if f.folder == folder), None
        )
        as_it_was = evaluate is None and not knobs and (measure is None or _is_settled(before))
        if before is not None and as_it_was and _is_valid(before, target, lean=lean):
            assert before.record is not None
            return Finish(folder, before.record, {}, ())
        last = {f.name: f.seconds for f in before.record.stages} if before and before.record else {}
        work = _Work(
            bundle, bundle.manifest.precision, target, folder, lean, knobs, cache, progress
        )
        return work.run(last, evaluate) if measure is None else work.choose(evaluate, measure)


@dataclass(frozen=True, slots=True)
class _Work:
    """One target's engines, step by step."""

    bundle: Bundle
    precision: str
    target: TargetProfile
    folder: Path
    lean: bool
    knobs: BuilderKnobs
    cache: EngineCache | None
    progress: Progress

    def run(self, last_s: Mapping[str, float], evaluate: PathLike | None) -> Finish:
        """Build, prove and record."""
        made, failed = self._make(last_s, evaluate)
        if not made.record.passed:
            raise ParityError(
                f"the engine for '{self.target.name}' is not fit for use: {made.record.reason}. "
                f"It is kept in {self.folder} to be looked at, and is never loaded",
                report=failed,
            )
        return Finish(self.folder, made.record, made.seconds, made.cached)

    def choose(self, evaluate: PathLike | None, measure: Measure) -> Finish:
        """Build and prove both precisions elsewhere, and keep the better one here."""

        def make(precision: str, folder: Path) -> Candidate:
            return replace(self, precision=precision, folder=folder)._make({}, evaluate)[0]

        def keep(made: Candidate, choice: Choice) -> Finish:
            (self.folder / RECORD).unlink(missing_ok=True)
            for stage in made.record.stages:
                data = (made.folder / stage.file).read_bytes()
                write_whole(self.folder / stage.file, data, mode=0o644)
            record = replace(made.record, choice=choice).sealed()
            write_whole(self.folder / RECORD, record.to_json().encode(), mode=0o644)
            return Finish(self.folder, record, made.seconds, made.cached)

        headline = get_task(self.bundle.manifest.task).headline
        return choose(
            self.bundle,
            self.target.name,
            make,
            measure,
            headline=headline,
            keep=keep,
            progress=self.progress,
        )

    @property
    def _stages(self) -> list[Stage]:
        return [stage.in_precision(self.precision) for stage in self.bundle.manifest.stages]

    def _make(
        self, last_s: Mapping[str, float], evaluate: PathLike | None
    ) -> tuple[Candidate, ParityReport | None]:
        """Build, prove and record; return the report that speaks against it, too."""
        (self.folder / RECORD).unlink(missing_ok=True)
        device = cuda_device() if self.target.flavour.on_gpu else None
        workspace_bytes = self.knobs.workspace_bytes or _workspace_bytes(device)
        files, results, reports = [], [], []
        for stage in self._stages:
            result = self._build(stage, workspace_bytes, last_s.get(stage.name))
            results.append(result)
            data = result.path.read_bytes()
            files.append(_engine_file(stage.name, result, data))
            reports += self._prove(stage, data, device)
        # A CPU has no FP16 kernels, and few of INT8: what its graph asks for is proven, not met.
        wanted = self.precision if device is not None else "fp32"
        reason = _failure_reason(wanted, reports, files)
        score: dict[str, float] = {}
        if evaluate is not None and not reason:
            score, reason = self._score(evaluate, device)
        record = self._record(results[0], files, reports, score, reason)
        record = record.sealed()
        write_whole(self.folder / RECORD, record.to_json().encode(), mode=0o644)
        names = [file.name for file in files]
        seconds = {n: r.seconds for n, r in zip(names, results, strict=True)}
        cached = tuple(n for n, r in zip(names, results, strict=True) if r.cached)
        failed = next((report for report in reports if not report.passed), None)
        return Candidate(self.folder, record, seconds, cached), failed

    def _build(
        self, stage: Stage, workspace_bytes: int | None, last_s: float | None
    ) -> BuildResult:
        engine = self._engine(stage)
        with staged(engine) as unfinished:
            graph = unfinished.with_suffix(".graph")
            try:
                graph.write_bytes(self.bundle.read(self._graph(stage)))
                request = BuildRequest(
                    graph,
                    self.target,
                    unfinished,
                    stage.profiles,
                    workspace_bytes=workspace_bytes,
                    optimization_level=self.knobs.optimization_level,
                    version_compatible=self.lean,
                    timing_cache=timing_cache_file(self.cache, self.target.flavour),
                )
                payload = _timed(self.progress, stage.name, last_s)
                result = cached_build(request, payload, cache=self.cache)
            finally:
                graph.unlink(missing_ok=True)
            check_tensors(stage, result, self.target)
        return replace(result, path=engine)

    def _engine(self, stage: Stage) -> Path:
        """Return where a stage's engine goes."""
        return self.folder / f"{stage.name}.{self.target.flavour.suffix}"

    def _graph(self, stage: Stage) -> str:
        """Return the graph to build from: a CPU's own has a rest that is fast there."""
        return stage.graph if self.target.flavour.on_gpu else host_graph(stage)

    def _prove(self, stage: Stage, data: bytes, device: Device | None) -> list[ParityReport]:
        self.progress(f"{stage.name}: golden vectors", 0, 0)
        inputs, outputs = self.bundle.golden(stage.name)
        with Session(self._program(data, device), stage.profiles, RunOptions()) as session:
            name = f"{stage.name}/{self.target.name}"
            proof = bundle_proof(self.bundle.manifest)
            return check_golden(session, stage, inputs, outputs, proof=proof, name=name)

    def _score(self, folder: PathLike, device: Device | None) -> tuple[dict[str, float], str]:
        """Return the engine's figures, and why they are too low beside the same graph's.

        The reference is the graph on ONNX Runtime: never the engine itself, which would pass.
        """
        manifest = self.bundle.manifest
        if len(manifest.stages) != 1:
            raise ValueError("evaluate: a captioner that streams tokens is not scored here")
        (stage,) = self._stages
        task = get_task(manifest.task)
        if task.headline is None:
            raise ValueError(f"task '{task}' has no metric: leave out --evaluate")
        decoder = bundle_decoder(manifest, self.bundle.read)
        state = state_names(manifest.settings, stage)
        path = host_graph(stage)
        graph, reference = self.bundle.read(path), f"{path} on ONNX Runtime"
        with contextlib.ExitStack() as stack:
            forms: dict[str, Predict] = {}
            for name, program in (
                (reference, make_program(graph, ORT, None, RunOptions())),
                (self.target.name, self._program(self._engine(stage).read_bytes(), device)),
            ):
                session = stack.enter_context(
                    Session(program, stage.profiles, RunOptions(), state=state)
                )
                forms[name] = predictor(decoder, partial(session.run_timed, is_cut=True))
            before, after = score_task(task, decoder, forms, folder, self.progress)
        figures = {k: v for k, v in after.figures().items() if v is not None}
        verdict = judge(task.headline, before, after)
        return figures, "" if verdict.passed else verdict.text

    def _program(self, data: bytes, device: Device | None) -> Program:
        return make_program(data, self.target.flavour, device, RunOptions())

    def _record(
        self,
        first: BuildResult,
        files: Sequence[EngineFile],
        reports: Sequence[ParityReport],
        score: Mapping[str, float],
        reason: str,
    ) -> Record:
        return Record(
            target=self.target.name,
            flavour=self.target.flavour,
            version=first.version,
            machine=machine_name(self.target.flavour),
            date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
            manifest_sha256=self.bundle.manifest_sha256,
            passed=not reason,
            reason=reason,
            version_compatible=self.lean,
            parity=tuple(map(str, reports)),
            score=score,
            stages=tuple(files),
        )


def _is_settled(before: EngineFolder | None) -> bool:
    """Whether this device chose before, by a verdict that a quieter hour would not change."""
    choice = before.record.choice if before and before.record else None
    return choice is not None and choice.verdict not in UNSETTLED


def _is_valid(before: EngineFolder, target: TargetProfile, *, lean: bool) -> bool:
    """Whether this device proved what is there, by this builder's version, byte for byte."""
    record = before.record
    if record is None or before.reason or record.version_compatible != lean or not record.is_ours:
        return False
    if record.version != builder_for(target.flavour).version():
        return False
    try:
        return all(before.read(file.name) for file in record.stages)
    except BundleError:
        return False


def _failure_reason(
    precision: str, reports: Sequence[ParityReport], files: Sequence[EngineFile]
) -> str:
    for report in reports:
        if not report.passed:
            return str(report)
    layers: dict[str, int] | None = None
    for file in files:
        for kind, count in (file.layers or {}).items():
            layers = {**(layers or {}), kind: (layers or {}).get(kind, 0) + count}
    return precision_shortfall(precision, layers)


def _engine_file(name: str, result: BuildResult, data: bytes) -> EngineFile:
    digest = hashlib.sha256(data).hexdigest()
    return EngineFile(
        name, result.path.name, digest, len(data), round(result.seconds, 3), result.layers
    )


def host_graph(stage: Stage) -> str:
    """Return the path of what ONNX Runtime runs of a stage: its own artifact, or the graph."""
    for artifact in stage.artifacts:
        if artifact.flavour.is_graph and artifact.path is not None:
            return artifact.path
    return stage.graph


def _timed(progress: Progress, stage: str, last_s: float | None) -> Progress:
    """Return progress whose phase says how long it has taken, and how long the last time."""
    began = time.monotonic()
    last = "" if last_s is None else f" of some {last_s:.0f}"

    def payload(phase: str, done: int, total: int) -> None:
        progress(f"{stage}: {phase}, {time.monotonic() - began:.0f} s{last}", done, total)

    return payload


def _workspace_bytes(device: Device | None) -> int | None:
    """Return how much the builder may use for tactics; None where it takes none.

    Raises:
        InsufficientMemoryError: there is far too little.
    """
    if device is None:
        return None
    with device.active():
        free_bytes, total_bytes = device.memory()
    if device.capabilities.integrated:
        # CUDA does not count what the kernel would give back, its file cache above all.
        with contextlib.suppress(FileReadError):
            free_bytes = max(free_bytes, read_memory().available_bytes)
    limit = int(free_bytes * _SHARE_OF_FREE)
    if limit < _MIN_WORKSPACE_BYTES:
        raise InsufficientMemoryError(
            f"{free_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB are free, and a builder wants "
            f"{_MIN_WORKSPACE_BYTES / _SHARE_OF_FREE / 1e6:.0f} MB. Close other programs first, "
            "or say how little it may use: --set workspace_bytes=128MB (workspace_bytes= in Python)"
        )
    # A power of two: it is part of an engine's key in the cache, and free memory never repeats.
    return 1 << (limit.bit_length() - 1)
