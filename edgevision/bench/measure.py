"""Bundles measured: their frames, the scenario, what came out, and what they ran on."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.bench import scenarios
from edgevision.bench.cold import ColdStart, cold_start
from edgevision.bench.counters import Energy, EnergyMeter
from edgevision.bench.gate.sides import of_bundle
from edgevision.bench.reference import Row, rows
from edgevision.bench.statistics import Summary, Trace, summarise
from edgevision.bundle.directory import Bundle
from edgevision.bundle.trust import Trust
from edgevision.machine.environment import environment
from edgevision.progress import Progress, silent
from edgevision.runtime.load import load
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.tasks.cameras import cameras_decoder
from edgevision.tasks.decoders import bundle_decoder, state_names

SCENARIOS = ("single", "paced", "throughput", "multi")
_PACED = ("paced", "multi")
_FRAMES = 8
_ANYBODY = Trust()

Peers = Mapping[str, Callable[[Mapping[str, Any]], object] | str]


@dataclass(frozen=True, slots=True)
class Settings:
    """How bundles are measured.

    Attributes:
        scenario: "single", "paced", "throughput", or "multi": all bundles at once, paced.
        fps: the camera's rate, for "paced" and "multi".
        duration_s: how long.
        deadline_ms: after which an answer counts as missed; two periods of a camera if not given.
        device: see `edgevision.load`.
        slots: frames in the pipeline at most.
        cold_starts: how many fresh processes are timed, 0 for none.
        reference: whether other ways are measured beside ours.
    """

    scenario: str = "single"
    fps: float = 30.0
    duration_s: float = 10.0
    deadline_ms: float | None = None
    device: str = "auto"
    slots: int = 3
    cold_starts: int = 3
    reference: bool = True

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ValueError(f"scenario: got '{self.scenario}', expected {', '.join(SCENARIOS)}")
        for name in ("fps", "duration_s"):
            if not 0 < getattr(self, name) <= 100_000:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 100,000")

    @property
    def due_by_ms(self) -> float | None:
        """The deadline that counts."""
        paced = 2e3 / self.fps if self.scenario in _PACED else None
        return self.deadline_ms if self.deadline_ms is not None else paced


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory at the end of a run, in MB.

    Attributes:
        host_mb: the most that the process had.
        slots_mb: what the model's slots hold, on the host and the device.
        device_mb: in use on the device, by all programs; None where it ran on the host.
    """

    host_mb: float
    slots_mb: float
    device_mb: float | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one bundle.

    Attributes:
        name: the bundle's name.
        task: what it does.
        precision: of its graph.
        device: what it ran on.
        settings: how it was measured.
        explanation: which artifact ran, on what, and how.
        warm_up_runs: runs before the measured ones.
        is_settled: whether five blocks of warm-up agreed within 3 % in the end.
        summary: what the trace says; None if it was stopped before the first answer.
        memory: at the end.
        energy: of the measured run.
        environment: what it ran on, before.
        changed: what was otherwise afterwards.
        cold: fresh processes; None if they were not asked for, or the run was stopped.
        reference: other ways beside ours; empty if they were not asked for.
        trace: frame by frame.
    """

    name: str
    task: str
    precision: str
    device: str
    settings: Settings
    explanation: str
    warm_up_runs: int
    is_settled: bool
    summary: Summary | None
    memory: Memory
    energy: Energy
    environment: Mapping[str, str]
    changed: Mapping[str, str]
    cold: ColdStart | None
    reference: tuple[Row, ...]
    trace: Trace

    @property
    def is_cut(self) -> bool:
        """Whether it was stopped before its time."""
        return self.trace.is_cut

    @property
    def energy_per_frame_mj(self) -> float | None:
        """Energy of the run over its answers."""
        return self.energy.per_frame_mj(self.summary.answered if self.summary else 0)

    def as_json(self) -> dict[str, Any]:
        """Return everything but the trace."""
        kept = ("name", "task", "precision", "device", "explanation", "warm_up_runs", "is_settled")
        return {
            **{field: getattr(self, field) for field in (*kept, "is_cut")},
            "settings": asdict(self.settings),
            "summary": asdict(self.summary) if self.summary else None,
            "memory": asdict(self.memory),
            "energy": {**asdict(self.energy), "per_frame_mj": self.energy_per_frame_mj},
            "cold": asdict(self.cold) if self.cold else None,
            "reference": [asdict(row) for row in self.reference],
            "environment": dict(self.environment),
            "changed": dict(self.changed),
        }


def measure(
    paths: Sequence[str | os.PathLike[str]],
    settings: Settings,
    *,
    trust: Trust = _ANYBODY,
    peers: Peers | None = None,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure bundles on their golden frames, one after the other, or all at once in "multi".

    After Ctrl-C what was measured until then is returned, and the last of it says that it is cut.

    Args:
        paths: the bundles.
        settings: how.
        trust: what is asked of each bundle.
        peers: other ways to run the same model, by name, beside those that a bundle itself allows.
        progress: told of frames and cold starts.

    Raises:
        ValueError: no frame has an answer though nothing stopped the run.
        EdgeVisionError: see `edgevision.load`.
    """
    if settings.scenario == "multi":
        return _together(paths, settings, trust, peers or {}, progress)
    found: list[Measurement] = []
    for path in paths:
        try:
            found += _together([path], settings, trust, peers or {}, progress)
        except KeyboardInterrupt:
            if not found:
                raise
            found[-1] = replace(found[-1], trace=replace(found[-1].trace, is_cut=True))
        if found[-1].is_cut:
            break
    return found


def golden_frames(bundle: Bundle) -> list[Any]:
    """Return up to eight of the bundle's golden frames, as its model takes them."""
    stage = bundle.manifest.stages[0]
    inputs, _ = bundle.golden(stage.name)
    count = min(_FRAMES, *(len(samples) for samples in inputs.values()))
    decoder, state = (
        bundle_decoder(bundle.manifest, bundle.read),
        state_names(bundle.manifest.settings, stage),
    )
    fed = {name: samples[:count] for name, samples in inputs.items() if name not in state}
    if decoder.camera is None:
        return [{name: samples[i] for name, samples in fed.items()} for i in range(count)]
    (samples,) = fed.values()
    if cameras_decoder(decoder) is None:
        samples = samples.squeeze(1)
    return [np.ascontiguousarray(sample) for sample in samples]


def _together(
    paths: Sequence[str | os.PathLike[str]],
    settings: Settings,
    trust: Trust,
    peers: Peers,
    progress: Progress,
) -> list[Measurement]:
    bundles = [trust.open(path, is_measured=True) for path in paths]
    frames = [golden_frames(bundle) for bundle in bundles]
    with ExitStack() as stack:
        options = RunOptions(slots=1)
        models = [
            stack.enter_context(load(bundle, device=settings.device, options=options))
            for bundle in bundles
        ]
        warmed = [scenarios.warm_up(model, own) for model, own in zip(models, frames, strict=True)]
        before = environment()
        on_gpu = any(model.selection.on_gpu for model in models)
        with EnergyMeter(on_gpu=on_gpu) as meter:
            traces = _run(models, frames, settings, progress)
        changed = {k: v for k, v in environment().items() if v != before[k] and k != "date"}
        found = []
        for i, model in enumerate(models):
            trace = traces[i]
            cold: ColdStart | None = None
            reference: tuple[Row, ...] = ()
            try:
                if not any(each.is_cut for each in traces):
                    if settings.reference:
                        reference = rows(bundles[i], model, frames[i][0], peers, progress=progress)
                    if settings.cold_starts:
                        cold = cold_start(
                            of_bundle(paths[i], device=settings.device, trust=trust),
                            processes=settings.cold_starts,
                            progress=progress,
                        )
            except KeyboardInterrupt:
                trace = traces[i] = replace(trace, is_cut=True)
            answered = len(trace.latencies_ms) or not trace.is_cut
            choice = model.selection.choice
            found.append(
                Measurement(
                    name=Path(paths[i]).name,
                    task=model.manifest.task,
                    # What a device chose is another graph than the bundle's own.
                    precision=choice.precision if choice else model.manifest.precision,
                    device=model.session.program.device.name,
                    settings=settings,
                    explanation=model.explain(),
                    warm_up_runs=warmed[i][0],
                    is_settled=warmed[i][1],
                    summary=summarise(trace, deadline_ms=settings.due_by_ms) if answered else None,
                    memory=_memory(model),
                    energy=meter.energy,
                    environment=before,
                    changed=changed,
                    cold=cold,
                    reference=reference,
                    trace=trace,
                )
            )
        return found


def _run(
    models: Sequence[Model[Any]],
    frames: Sequence[Sequence[Any]],
    settings: Settings,
    progress: Progress,
) -> list[Trace]:
    seconds, slots, fps = settings.duration_s, settings.slots, settings.fps
    if settings.scenario == "multi":
        return scenarios.multi(
            models, frames, fps=fps, duration_s=seconds, slots=slots, progress=progress
        )
    (model,), (own,) = models, frames
    if settings.scenario == "single":
        return [scenarios.single(model, own, duration_s=seconds, progress=progress)]
    if settings.scenario == "throughput":
        return [
            scenarios.throughput(model, own, duration_s=seconds, slots=slots, progress=progress)
        ]
    return [
        scenarios.paced(model, own, fps=fps, duration_s=seconds, slots=slots, progress=progress)
    ]


def _memory(model: Model[Any]) -> Memory:
    free_bytes, total_bytes = model.session.program.device.memory()
    on_gpu = model.selection.on_gpu
    return Memory(
        host_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        slots_mb=model.session.allocated_bytes / 1e6,
        device_mb=(total_bytes - free_bytes) / 1e6 if on_gpu else None,
    )
