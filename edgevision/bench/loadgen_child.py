"""A process that MLCommons LoadGen drives: SingleStream over a bundle's golden frames.

    python -m edgevision.bench.loadgen_child BUNDLE FOLDER --duration 10 --device auto

LoadGen's logs and our own times of the same calls (`ours.npy`, ns) go to FOLDER. It is a process of
its own because LoadGen waits for ever for an answer that is lost, and brings the process down after
an exception.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.bench.measure import golden_frames
from edgevision.bench.scenarios import warm_up
from edgevision.bundle.trust import Trust
from edgevision.runtime.load import load
from edgevision.runtime.options import RunOptions

_MIN_QUERIES = 64  # where LoadGen's 90th percentile holds
_TIMED_CALLS = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--duration", type=float, default=10.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trust", type=Trust.from_argument, default=Trust())
    options = parser.parse_args()
    bundle = options.trust.open(options.bundle, is_measured=True)
    frames = golden_frames(bundle)
    with load(bundle, device=options.device, options=RunOptions(slots=1)) as model:
        warm_up(model, frames)
        times_ns = _drive(model, frames, options.folder, options.duration)
    np.save(options.folder / "ours.npy", np.array(times_ns, np.int64), allow_pickle=False)


def _drive(model: Any, frames: list[Any], folder: Path, duration_s: float) -> list[int]:
    loadgen = require("mlperf_loadgen", extra="loadgen")
    times_ns: list[int] = []

    def issue(samples: Any) -> None:
        for sample in samples:
            start_ns = perf_counter_ns()
            model(frames[sample.index])
            times_ns.append(perf_counter_ns() - start_ns)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    def nothing(*_: object) -> None:
        """Nothing is held back, and every frame is in memory from the start."""

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(duration_s * 1e3)
    settings.max_duration_ms = int(duration_s * 2e3) + 1000
    settings.min_query_count = _MIN_QUERIES
    # It draws its queries beforehand, and ends with the last: with half a call's time as what it
    # expects there are enough for the whole duration.
    settings.single_stream_expected_latency_ns = max(1, _fastest_ns(model, frames[0]) // 2)
    log = loadgen.LogSettings()
    log.log_output = loadgen.LogOutputSettings()
    log.log_output.outdir = str(folder)
    log.enable_trace = False
    system = loadgen.ConstructSUT(issue, nothing)
    library = loadgen.ConstructQSL(len(frames), len(frames), nothing, nothing)
    loadgen.StartTestWithLogSettings(system, library, settings, log)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    return times_ns


def _fastest_ns(model: Any, frame: Any) -> int:
    times_ns = []
    for _ in range(_TIMED_CALLS):
        start_ns = perf_counter_ns()
        model(frame)
        times_ns.append(perf_counter_ns() - start_ns)
    return min(times_ns)


if __name__ == "__main__":
    main()
