"""One bundle measured: its frames, its scenario, its summary, and what it ran on."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.bench import scenarios
from edgevision.bench.environment import environment
from edgevision.bench.statistics import Summary, Trace, summarise
from edgevision.bundle import Bundle
from edgevision.progress import Progress, silent
from edgevision.runtime.load import load
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions

SCENARIOS = ("single", "paced", "throughput")
_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bundle is measured.

    Attributes:
        scenario: "single", "paced" or "throughput".
        fps: the camera's rate, for "paced".
        duration_s: how long.
        deadline_ms: after which an answer counts as missed; two periods of "paced" if not given.
        device: see `edgevision.load`.
        slots: frames in the pipeline at most.
    """

    scenario: str = "single"
    fps: float = 30.0
    duration_s: float = 10.0
    deadline_ms: float | None = None
    device: str = "auto"
    slots: int = 3

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.scenario not in SCENARIOS:
            raise ValueError(f"scenario: got '{self.scenario}', expected {', '.join(SCENARIOS)}")
        for name in ("fps", "duration_s"):
            if not 0 < getattr(self, name) <= 100_000:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 100,000")

    @property
    def due_by_ms(self) -> float | None:
        """The deadline that counts."""
        paced = 2e3 / self.fps if self.scenario == "paced" else None
        return self.deadline_ms if self.deadline_ms is not None else paced


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured.

    Attributes:
        name: the bundle's name.
        settings: how.
        explanation: which artifact ran, on what, and how.
        warm_up_runs: runs before the measured ones.
        is_settled: whether five blocks of warm-up agreed within 3 % in the end.
        summary: what the trace says.
        memory_mb: the process's peak memory.
        environment: what it ran on.
        trace: frame by frame.
    """

    name: str
    settings: Settings
    explanation: str
    warm_up_runs: int
    is_settled: bool
    summary: Summary
    memory_mb: float
    environment: Mapping[str, str]
    trace: Trace

    def as_json(self) -> dict[str, Any]:
        """Return everything but the trace."""
        fields = ("name", "explanation", "warm_up_runs", "is_settled", "memory_mb", "environment")
        return {
            **{field: getattr(self, field) for field in fields},
            "settings": asdict(self.settings),
            "summary": asdict(self.summary),
        }


def measure(
    path: str | os.PathLike[str],
    settings: Settings,
    *,
    progress: Progress = silent,
) -> Measurement:
    """Measure one bundle on its golden frames.

    Raises:
        ValueError: no frame has an answer.
        EdgeVisionError: see `edgevision.load`.
    """
    bundle = Bundle.open(path)
    frames = frames_of(bundle)
    options = RunOptions(slots=1)
    with load(bundle, device=settings.device, options=options) as model:
        runs, is_settled = scenarios.warm_up(model, frames)
        trace = _run(model, frames, settings, progress)
        return Measurement(
            name=Path(path).name,
            settings=settings,
            explanation=model.explain(),
            warm_up_runs=runs,
            is_settled=is_settled,
            summary=summarise(trace, deadline_ms=settings.due_by_ms),
            memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            environment=environment(),
            trace=trace,
        )


def _run(
    model: Model,
    frames: Sequence[Any],
    settings: Settings,
    progress: Progress,
) -> Trace:
    seconds, slots = settings.duration_s, settings.slots
    if settings.scenario == "single":
        return scenarios.single(model, frames, duration_s=seconds, progress=progress)
    if settings.scenario == "throughput":
        return scenarios.throughput(
            model, frames, duration_s=seconds, slots=slots, progress=progress
        )
    return scenarios.paced(
        model, frames, fps=settings.fps, duration_s=seconds, slots=slots, progress=progress
    )


def frames_of(bundle: Bundle) -> list[Any]:
    """Return up to eight of the bundle's golden frames, as its model takes them."""
    stage = bundle.manifest.stages[0]
    inputs, _ = bundle.golden(stage.name)
    count = min(_FRAMES, *(len(samples) for samples in inputs.values()))
    if bundle.manifest.task == "semantic":
        (samples,) = inputs.values()
        return [np.ascontiguousarray(sample) for sample in samples[:count].squeeze(1)]
    return [{name: samples[i] for name, samples in inputs.items()} for i in range(count)]
