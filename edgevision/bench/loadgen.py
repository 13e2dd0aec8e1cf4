"""MLCommons LoadGen as a second clock: its SingleStream scenario over a bundle, and our own times.

What it gives is called "LoadGen SingleStream, unofficial": an MLPerf result is something else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edgevision
from edgevision._optional import require
from edgevision.bench.statistics import PERCENTILES, name, percentile
from edgevision.bundle.trust import Trust
from edgevision.errors import RunError

TITLE = "LoadGen SingleStream, unofficial"
_MARK = ":::MLLOG "
_START_S = 60.0
_ANYBODY = Trust()
_POINTS = {name(point): f"result_{point:.2f}_percentile_latency_ns" for point in PERCENTILES}


@dataclass(frozen=True, slots=True)
class LoadGenRun:
    """One run of LoadGen.

    Attributes:
        queries: how many it asked.
        verdict: LoadGen's own, "VALID" or "INVALID".
        loadgen_ms: its percentiles, mean and maximum; None where there were too few queries.
        ours_ms: the same of the same calls by our clock and our arithmetic.
    """

    queries: int
    verdict: str
    loadgen_ms: Mapping[str, float | None]
    ours_ms: Mapping[str, float | None]


def drive(
    bundle: str | os.PathLike[str],
    *,
    duration_s: float = 10.0,
    device: str = "auto",
    trust: Trust = _ANYBODY,
) -> LoadGenRun:
    """Let LoadGen drive a bundle in a process of its own.

    Raises:
        MissingDependencyError: mlcommons-loadgen is not installed.
        RunError: the process failed, or gave no answer in time.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        require("mlperf_loadgen", extra="loadgen")
    with tempfile.TemporaryDirectory() as folder:
        child = [sys.executable, "-m", "edgevision.bench.loadgen_child", os.path.abspath(bundle)]
        child += [folder, "--duration", str(duration_s), "--device", device]
        child += trust.arguments()
        patience_s = 2 * duration_s + _START_S
        try:
            done = subprocess.run(
                child,
                # `-m` imports from the working directory first; the user's may hold any numpy.py.
                cwd=Path(edgevision.__file__).parents[1],
                capture_output=True,
                text=True,
                timeout=patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(
                f"LoadGen was not done after {patience_s:.0f} s and was ended: an answer was lost, "
                "or a call takes longer than the run. Give a longer --duration"
            ) from None
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise RunError(f"LoadGen's process ended with code {done.returncode}:\n{tail}")
        return read(Path(folder))


def read(folder: Path) -> LoadGenRun:
    """Read LoadGen's detailed log, and our own times beside it.

    Raises:
        RunError: the log is not there or lacks a result.
    """
    times_ms = np.load(folder / "ours.npy", allow_pickle=False) / 1e6
    payload: dict[str, object] = {}
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        if line.startswith(_MARK):
            entry = json.loads(line[len(_MARK) :])
            payload[entry["key"]] = entry["value"]
    ours = {name(point): percentile(times_ms, point) for point in PERCENTILES}
    try:
        # Its own early stopping is only for its target: what we do not print, it does not either.
        theirs = {
            point: None if ours[point] is None else _ms(payload[key])
            for point, key in _POINTS.items()
        }
        theirs |= {
            "mean": _ms(payload["result_mean_latency_ns"]),
            "max": _ms(payload["result_max_latency_ns"]),
        }
        queries, verdict = int(str(payload["result_query_count"])), str(payload["result_validity"])
    except KeyError as error:
        raise RunError(f"LoadGen's log has no {error}: it may be of another version") from error
    ours |= {"mean": float(times_ms.mean()), "max": float(times_ms.max())}
    return LoadGenRun(queries, verdict, theirs, ours)


def lines(found: LoadGenRun) -> list[str]:
    """Return it for people."""
    rows = [f"{TITLE}: {found.queries} queries, {found.verdict}"]
    for key, theirs in found.loadgen_ms.items():
        ours = found.ours_ms[key]
        payload = (
            "n too small"
            if theirs is None or ours is None
            else f"{theirs:.3f} ms, by our clock {ours:.3f} ms"
        )
        rows.append(f"  {key:6} {payload}")
    return rows


def _ms(value_ns: object) -> float:
    return float(str(value_ns)) / 1e6
