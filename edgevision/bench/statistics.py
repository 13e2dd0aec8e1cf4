"""What a run of frames says: percentiles where there were enough, jitter, misses, drops, gaps.

Latency counts from when a frame was due, not from when the program came to it: a stall delays every
frame that was due meanwhile, and each of them says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_CONFIDENCE = 0.99

Times = npt.NDArray[np.int64]
Spans = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """A run, frame by frame, in the order in which they were due.

    Attributes:
        due_ns: when each frame was due.
        done_ns: when its answer was there; 0 where it was dropped.
        stages_ms: by stage, how long each frame spent in it; NaN where it was dropped.
        is_cut: whether it was stopped before its time.
    """

    due_ns: Times
    done_ns: Times
    stages_ms: Mapping[str, Spans] = field(default_factory=dict)
    is_cut: bool = False

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which frames have an answer."""
        return self.done_ns > 0

    @property
    def latencies_ms(self) -> Spans:
        """Of the frames that have an answer."""
        spans: Spans = (self.done_ns - self.due_ns)[self.answered] / 1e6
        return spans


@dataclass(frozen=True, slots=True)
class Summary:
    """What a trace says.

    Attributes:
        frames: that were due.
        answered: that have an answer.
        dropped: that have none.
        percentiles_ms: by name; None where there were too few answers to tell.
        mean_ms: of the latencies.
        max_ms: the slowest.
        jitter_ms: 99th percentile less the median; None where there were too few answers.
        max_gap_ms: the longest time between two answers.
        missed: frames without an answer by their deadline; None without a deadline.
        longest_miss: such frames in a row; None without a deadline.
        stages_ms: median of each stage.
        per_second: answers per second, from the first frame to the last answer.
    """

    frames: int
    answered: int
    dropped: int
    percentiles_ms: Mapping[str, float | None]
    mean_ms: float
    max_ms: float
    jitter_ms: float | None
    max_gap_ms: float
    missed: int | None
    longest_miss: int | None
    stages_ms: Mapping[str, float]
    per_second: float


def summarise(trace: Trace, *, deadline_ms: float | None = None) -> Summary:
    """Sum up a trace.

    Raises:
        ValueError: no frame has an answer.
    """
    answered, latencies_ms = trace.answered, trace.latencies_ms
    if not len(latencies_ms):
        raise ValueError(f"none of {len(trace.due_ns)} frames has an answer; run for longer")
    percentiles = {name(point): percentile(latencies_ms, point) for point in PERCENTILES}
    top, middle = percentiles[name(99.0)], percentiles[name(50.0)]
    done_ns = trace.done_ns[answered]
    missed = None
    if deadline_ms is not None:
        missed = ~answered
        missed[answered] = latencies_ms > deadline_ms
    return Summary(
        frames=len(trace.due_ns),
        answered=int(answered.sum()),
        dropped=int((~answered).sum()),
        percentiles_ms=percentiles,
        mean_ms=float(latencies_ms.mean()),
        max_ms=float(latencies_ms.max()),
        jitter_ms=None if top is None or middle is None else top - middle,
        max_gap_ms=float(np.diff(np.sort(done_ns)).max() / 1e6) if len(done_ns) > 1 else 0.0,
        missed=None if missed is None else int(missed.sum()),
        longest_miss=None if missed is None else longest_run(missed),
        stages_ms={stage: float(np.nanmedian(ms)) for stage, ms in trace.stages_ms.items()},
        per_second=len(done_ns) / ((done_ns.max() - trace.due_ns[0]) / 1e9),
    )


def percentile(latencies_ms: Spans, point: float) -> float | None:
    """Return a percentile, interpolated as numpy does; None where there are too few to tell."""
    if len(latencies_ms) < least_frames(point):
        return None
    return float(np.percentile(latencies_ms, point))


def least_frames(point: float) -> int:
    """Return how many frames a percentile wants before it is more than luck.

    So many that, were the true rate of slower frames as high as the percentile says, one or none
    among them would have a chance of 1 % at most: the early stopping of MLPerf's LoadGen
    (mlcommons/inference, "early stopping"), with one frame over allowed.
    """
    fast = point / 100
    if point == 50.0:
        return 1
    # P(one or none of n) = fast^n + n (1 - fast) fast^(n-1), which falls with n.
    low, high = 1, 1 << 20
    while low < high:
        n = (low + high) // 2
        chance = math.exp((n - 1) * math.log(fast)) * (fast + n * (1 - fast))
        low, high = (low, n) if chance <= 1 - _CONFIDENCE else (n + 1, high)
    return low


def longest_run(missed: npt.NDArray[np.bool_]) -> int:
    """Return the most frames in a row that were missed."""
    runs = (len(list(group)) for late, group in itertools.groupby(missed) if late)
    return max(runs, default=0)


def name(point: float) -> str:
    """Return "p99.9" for 99.9."""
    return f"p{point:g}"
