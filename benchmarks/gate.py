"""Whether `edgevision bench compare` finds what is there, and nothing else, on a busy machine.

    python -m benchmarks.gate [--same 200] [--slower 100] [--large 3] [--json-file FILE]

Beside a process that computes all the time, it compares a model of about a millisecond with itself,
and with itself slowed down by 3 and by 5 percent, over and over; then a few times one of 20 ms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from benchmarks.graphs import busy_frame
from benchmarks.realtime import hogs
from benchmarks.script import arguments, record
from edgevision.bench.gate.compare import Comparison, Side, compare

# Share of the trials in which each slow-down must be found, and without one nothing must be.
BARS = {0.0: 0.0, 0.03: 0.70, 0.05: 0.95}
DECISION_S = {1: 10.0, 20: 60.0}
NETS = {1: busy_frame(48, 64, 8), 20: busy_frame(180, 320, 15)}


def side(part: float, graph: Path) -> Side:
    worker = str(Path(__file__).with_name("slowed.py"))
    return Side(f"slowed by {part:.0%}", (sys.executable, worker, str(part), str(graph)))


def trials(part: float, count: int, call_ms: int, folder: Path) -> dict[str, object]:
    """Decide `count` times."""
    graph = folder / f"{call_ms}.onnx"
    graph.write_bytes(NETS[call_ms])
    verdicts: Counter[str] = Counter()
    seconds: list[float] = []
    decisions: list[Comparison] = []
    for number in range(count):
        start_ns = perf_counter_ns()
        found = compare(side(0.0, graph), side(part, graph))
        seconds.append((perf_counter_ns() - start_ns) / 1e9)
        verdicts[found.verdict] += 1
        decisions.append(found)
        if (number + 1) % 10 == 0:
            print(
                f"{call_ms} ms, +{part:.0%}: {number + 1} of {count}, {dict(verdicts)}",
                file=sys.stderr,
            )
    alarms = verdicts["slower"] if part else verdicts["slower"] + verdicts["faster"]
    share, bar = alarms / count, BARS[part]
    return {
        "model_ms": call_ms,
        "slowed_by": part,
        "trials": count,
        "verdicts": dict(verdicts),
        "share": share,
        "bar": bar,
        "passed": (share >= bar if part else share <= bar) and max(seconds) <= DECISION_S[call_ms],
        "median_ratio": float(np.median([found.ratio for found in decisions])),
        "call_us": float(np.median([found.first_us for found in decisions])),
        "decision_s": {
            "median": float(np.median(seconds)),
            "max": max(seconds),
            "bar": DECISION_S[call_ms],
        },
        "decisions": [
            [
                found.verdict,
                *(round(x, 5) for x in (found.ratio, found.low, found.high, found.control)),
            ]
            for found in decisions
        ],
    }


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--same", type=int, default=200, help="trials of the model with itself")
    parser.add_argument("--slower", type=int, default=100, help="trials of each slow-down")
    parser.add_argument("--large", type=int, default=3, help="trials of a model of 20 ms")
    return parser


def main() -> int:
    options = parser().parse_args()
    plan = [(0.0, options.same, 1), (0.03, options.slower, 1), (0.05, options.slower, 1)]
    plan += [(0.0, options.large, 20), (0.05, options.large, 20)]
    rows = []
    with hogs(1), tempfile.TemporaryDirectory() as folder:
        for part, count, call_ms in plan:
            if count:
                rows.append(trials(part, count, call_ms, Path(folder)))
                print({k: v for k, v in rows[-1].items() if k != "decisions"}, flush=True)
    if options.json_file:
        record(options.json_file, rows=rows)
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
