"""The statistics of a run, against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest

from edgevision.bench.statistics import Trace, least_frames, summarise

MS = 1_000_000


def trace_of(latencies_ms: list[float], *, period_ms: float = 10.0) -> Trace:
    """Return a paced run; NaN stands for a dropped frame."""
    due_ns = (1 + np.arange(len(latencies_ms)) * period_ms * MS).astype(np.int64)
    found = np.array(latencies_ms, float)
    done_ns = np.where(np.isnan(found), 0, due_ns + np.nan_to_num(found) * MS).astype(np.int64)
    return Trace(due_ns, done_ns)


# As scipy.stats.binom.cdf(1, n, 1 - p) <= 0.01 gives them.
@pytest.mark.parametrize(
    ("point", "frames"), [(50, 1), (90, 64), (95, 130), (99, 662), (99.9, 6636)]
)
def test_a_percentile_is_told_from_so_many_frames_on(point: float, frames: int) -> None:
    assert least_frames(point) == frames


@pytest.mark.parametrize("seed", range(25))
def test_recorded_traces_agree_with_plain_numpy(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(70, 9000))
    latencies = random.lognormal(1.0, 0.7, count)
    latencies[random.random(count) < 0.05] = np.nan
    deadline_ms = float(random.uniform(1, 8))
    trace = trace_of(list(latencies))
    found = summarise(trace, deadline_ms=deadline_ms)

    kept = np.sort(trace.latencies_ms)
    assert found.answered == len(kept) == np.isfinite(latencies).sum()
    assert found.dropped == count - len(kept)
    assert found.mean_ms == pytest.approx(sum(kept) / len(kept))
    assert found.max_ms == kept[-1]
    for point in (90.0, 99.0, 99.9):
        told = found.percentiles_ms[f"p{point:g}"]
        if len(kept) < least_frames(point):
            assert told is None
        else:  # the definition, by hand: linear between the two neighbours of rank (n - 1) p
            rank = (len(kept) - 1) * point / 100
            below, share = int(rank), rank % 1
            above = kept[min(below + 1, len(kept) - 1)]
            assert told == pytest.approx(kept[below] * (1 - share) + above * share)
    late, longest, run = 0, 0, 0
    for latency in latencies:
        is_missed = np.isnan(latency) or latency > deadline_ms
        late += is_missed
        run = run + 1 if is_missed else 0
        longest = max(longest, run)
    assert abs(found.missed - late) <= 1  # times are whole nanoseconds
    assert found.longest_miss == longest or abs(found.missed - late) == 1


def test_a_stall_is_told_by_every_frame_that_was_due_meanwhile() -> None:
    latencies = [2.0] * 100
    # The program stood still for 50 ms while frame 50 ran; the next four waited for it.
    latencies[50:55] = [52.0, 42.0, 32.0, 22.0, 12.0]
    found = summarise(trace_of(latencies), deadline_ms=10)
    assert (found.missed, found.longest_miss, found.max_ms) == (5, 5, 52.0)
    assert found.max_gap_ms == pytest.approx(60.0)


def test_too_few_answers_are_no_percentile_and_no_jitter() -> None:
    found = summarise(trace_of([1.0] * 100))
    assert found.percentiles_ms == {"p50": 1.0, "p90": 1.0, "p99": None, "p99.9": None}
    assert found.jitter_ms is None
    assert found.missed is None


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of 3 frames has an answer"):
        summarise(trace_of([np.nan] * 3))
