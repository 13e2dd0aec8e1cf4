"""How long a fresh process takes from its start to its first answer, and until it is steady."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from statistics import median

from edgevision.bench.gate.process import Side, Worker, workers
from edgevision.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Medians over fresh processes, each part after the one before.

    Attributes:
        interpreter_ms: from the start of the process to its first line of Python.
        import_ms: edgevision and numpy, with what `load` needs before it reads a bundle.
        load_ms: `load`, which checks the bundle and runs it once.
        first_answer_ms: the first call after that.
        total_ms: from the start of the process to that answer.
        steady_ms: from the start of the process until five blocks of five calls agree within 3 %;
            None where they never did within three seconds.
        processes: how many were started.
    """

    interpreter_ms: float
    import_ms: float
    load_ms: float
    first_answer_ms: float
    total_ms: float
    steady_ms: float | None
    processes: int


def cold_start(side: Side, *, processes: int = 3, progress: Progress = silent) -> ColdStart:
    """Start `side` over and over; files are in the system's cache from the second time on.

    Raises:
        RunError: a process failed.
    """
    starts = []
    for number in range(processes):
        progress("cold starts", number, processes)
        with workers([side]) as (worker,):
            starts.append(_parts_ms(worker))
    return _medians(starts)


def _parts_ms(worker: Worker) -> dict[str, float | None]:
    clock, started = worker.told["clock_ns"], worker.started_ns
    steady = json.loads(worker.ask("steady"))
    points = (started, clock["began"], clock["imported"], clock["loaded"], clock["answered"])
    interpreter, importing, loading, first = (
        (after - before) / 1e6 for before, after in pairwise(points)
    )
    return {
        "interpreter_ms": interpreter,
        "import_ms": importing,
        "load_ms": loading,
        "first_answer_ms": first,
        "total_ms": (clock["answered"] - started) / 1e6,
        "steady_ms": None if steady is None else (steady - started) / 1e6,
    }


def _medians(starts: Sequence[dict[str, float | None]]) -> ColdStart:
    names = [field.name for field in fields(ColdStart) if field.name.endswith("_ms")]
    found = {name: [start[name] for start in starts] for name in names}
    payload = {
        name: None if None in values else median(v for v in values if v is not None)
        for name, values in found.items()
    }
    return ColdStart(**payload, processes=len(starts))  # type: ignore[arg-type]
