"""A hundred recorded runs: what `summarise` says of each, against scipy and plain Python.

`python -m benchmarks.traces` recorded them: every scenario, 30 to 1000 fps, every other run beside
a process that computes all the time.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgevision.bench.statistics import Trace, least_frames, summarise

RECORDED = Path(__file__).parents[1] / "data" / "traces.npz"
DEADLINES_MS = (2.0, 33.4, 66.7)


@cache
def traces() -> list[Trace]:
    with np.load(RECORDED, allow_pickle=False) as kept:
        lengths, first_ns = kept["lengths"], kept["first_ns"]
        ends = np.cumsum(lengths)[:-1]
        gaps, spans = (np.split(kept[name], ends) for name in ("due_gap_ns", "latency_ns"))
    made = []
    for start, gap, span in zip(first_ns, gaps, spans, strict=True):
        due_ns = start + np.cumsum(gap)
        made.append(Trace(due_ns, np.where(span >= 0, due_ns + span, 0)))
    return made


def test_a_hundred_runs_of_every_kind_were_recorded() -> None:
    found = traces()
    assert len(found) == 100
    assert sum(not trace.answered.all() for trace in found) >= 10, "some dropped frames"
    assert sum(len(trace.latencies_ms) >= least_frames(99.9) for trace in found) >= 2


@pytest.mark.parametrize("number", range(100))
def test_percentiles_jitter_and_misses_agree_with_scipy(number: int) -> None:
    trace = traces()[number]
    due, done = trace.due_ns.tolist(), trace.done_ns.tolist()
    latencies_ms = [(d - u) / 1e6 for u, d in zip(due, done, strict=True) if d]
    for deadline_ms in DEADLINES_MS:
        found = summarise(trace, deadline_ms=deadline_ms)
        for point in (50.0, 90.0, 99.0, 99.9):
            told = found.percentiles_ms[f"p{point:g}"]
            # P(at most one of n slower than the percentile) <= 1 %, but for the median.
            is_told = point == 50 or stats.binom.cdf(1, len(latencies_ms), 1 - point / 100) <= 0.01
            wanted = stats.scoreatpercentile(latencies_ms, point) if is_told else None
            assert told == (None if wanted is None else pytest.approx(wanted, rel=1e-12)), point
        if found.jitter_ms is not None:
            top, middle = (stats.scoreatpercentile(latencies_ms, p) for p in (99, 50))
            assert found.jitter_ms == pytest.approx(top - middle, rel=1e-9)
        lates = [not d or d - u > deadline_ms * 1e6 for u, d in zip(due, done, strict=True)]
        runs = "".join("x" if late else " " for late in lates).split()
        assert found.missed == sum(lates)
        assert found.longest_miss == max(map(len, runs), default=0)
        assert found.dropped == done.count(0)
        assert found.mean_ms == pytest.approx(stats.tmean(latencies_ms), rel=1e-9)
        assert (found.frames, found.max_ms) == (len(due), max(latencies_ms))
    answers = sorted(filter(None, done))
    gaps = [later - sooner for sooner, later in pairwise(answers)]
    assert found.max_gap_ms == pytest.approx(max(gaps, default=0) / 1e6)
