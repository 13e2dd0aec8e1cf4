"""Records the runs that the statistics of `edgevision bench` are tested on.

    python -m benchmarks.traces BUNDLE [BUNDLE ...] [--out tests/data/traces.npz]

A hundred short runs of the bundles in every scenario, at several rates, every other one beside a
process that computes all the time. They are kept as they came: gaps, drops, stalls and all.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import edgevision
from benchmarks.realtime import hogs
from edgevision.bench import scenarios
from edgevision.bench.measure import golden_frames
from edgevision.bench.statistics import Trace
from edgevision.bundle.directory import Bundle

COUNT = 100
RATES = (30, 60, 120, 240, 1000)
SECONDS = (0.5, 1.0)
# Every so many runs one is long enough for the 99.9th percentile.
LONG_EVERY, LONG_S = 25, 2.0


def record(bundle: Bundle, number: int) -> Trace:
    frames = golden_frames(bundle)
    scenario, fps = ("paced", "single", "throughput")[number % 3], RATES[number % len(RATES)]
    is_long = number % LONG_EVERY == LONG_EVERY - 1
    seconds = LONG_S if is_long else SECONDS[number % 2]
    beside = hogs(1) if number % 2 else nullcontext()
    with beside, edgevision.load(bundle, device="cpu") as model:
        scenarios.warm_up(model, frames)
        if is_long:
            return scenarios.single(model, frames, duration_s=seconds)
        if scenario == "paced":
            return scenarios.paced(model, frames, fps=fps, duration_s=seconds)
        run = scenarios.single if scenario == "single" else scenarios.throughput
        return run(model, frames, duration_s=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path, help="the first is the fastest")
    parser.add_argument("--out", type=Path, default=Path("tests/data/traces.npz"))
    parser.add_argument("--most", type=int, default=8000, help="frames kept of a run")
    options = parser.parse_args()
    bundles = [Bundle.open(path) for path in options.bundles]
    traces = []
    for number in range(COUNT):
        is_long = number % LONG_EVERY == LONG_EVERY - 1
        trace = record(bundles[0 if is_long else number % len(bundles)], number)
        traces.append((trace, options.most if is_long else 600))
        print(f"\r{number + 1} of {COUNT}", end="", file=sys.stderr)
    print(file=sys.stderr)
    kept = [(t.due_ns[:most], t.done_ns[:most]) for t, most in traces]
    # Differences pack well; a dropped frame is due and never done.
    np.savez_compressed(
        options.out,
        lengths=np.array([len(due) for due, _ in kept]),
        first_ns=np.array([due[0] for due, _ in kept]),
        due_gap_ns=np.concatenate([np.diff(due, prepend=due[0]) for due, _ in kept]),
        latency_ns=np.concatenate([np.where(done > 0, done - due, -1) for due, done in kept]),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
