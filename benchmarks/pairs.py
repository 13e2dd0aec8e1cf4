"""Two ways of doing one thing, timed in shuffled pairs: ratios that hold on a noisy machine.

Blocks of a and b alternate in random order; the statistic is the median over pairs of the ratio of
their medians, with a bootstrap interval over pairs. Unpaired medians differ by a factor of 1.4
between two runs of the same code on a shared machine; paired ones stay within one percent.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from scipy import stats

_BLOCK_NS = 700_000
_LEAST_CALLS = 5
_SETTLED = 0.03
_WARM_UP_NS = 3_000_000_000
_CONFIDENCE = 0.99

Call = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How long `b` takes for each unit of `a`'s time.

    Attributes:
        ratio: median over pairs.
        low: lower end of its 99 % interval, by bootstrap over pairs.
        high: upper end.
        a_us: median of one call of a, printed only: it holds for this machine at this hour.
        b_us: the same of b.
        control: a against itself in the same run; away from 1 the machine is too noisy.
        settled: whether the warm-up came to rest.
    """

    ratio: float
    low: float
    high: float
    a_us: float
    b_us: float
    control: float
    settled: bool


def measure(a: Call, b: Call, *, pairs: int = 60, seed: int = 0) -> Ratio:
    """Time `a` against `b`."""
    calls_a, calls_b = _calls(a), _calls(b)
    with _quiet():
        settled = _warm_up(a, calls_a) and _warm_up(b, calls_b)
        order = random.Random(seed)
        logs, controls, times_a, times_b = [], [], [], []
        for _ in range(pairs):
            blocks = [(a, calls_a), (b, calls_b), (a, calls_a)]
            order.shuffle(blocks)
            took = [(call, _block(call, calls)) for call, calls in blocks]
            first, second = (time for call, time in took if call is a)
            (time_b,) = (time for call, time in took if call is b)
            logs.append(np.log(time_b / np.sqrt(first * second)))
            controls.append(np.log(second / first))
            times_a += [first, second]
            times_b.append(time_b)
    found = stats.bootstrap(
        (np.array(logs),), np.median, confidence_level=_CONFIDENCE, method="percentile", rng=seed
    ).confidence_interval
    return Ratio(
        ratio=float(np.exp(np.median(logs))),
        low=float(np.exp(found.low)),
        high=float(np.exp(found.high)),
        a_us=statistics.median(times_a) / 1e3,
        b_us=statistics.median(times_b) / 1e3,
        control=float(np.exp(np.median(controls))),
        settled=settled,
    )


def median_us(call: Call, *, blocks: int = 60) -> float:
    """Return the median time of a call."""
    calls = _calls(call)
    with _quiet():
        _warm_up(call, calls)
        return statistics.median(_block(call, calls) for _ in range(blocks)) / 1e3


def _calls(call: Call) -> int:
    """Return how many calls make a block."""
    for _ in range(3):
        call()
    start_ns = perf_counter_ns()
    for _ in range(_LEAST_CALLS):
        call()
    took_ns = (perf_counter_ns() - start_ns) / _LEAST_CALLS
    return max(_LEAST_CALLS, int(_BLOCK_NS / took_ns))


def _block(call: Call, calls: int) -> float:
    """Return the mean time of a call in ns over one block."""
    start_ns = perf_counter_ns()
    for _ in range(calls):
        call()
    return (perf_counter_ns() - start_ns) / calls


def _warm_up(call: Call, calls: int) -> bool:
    """Run until five blocks agree; return whether they came to."""
    end_ns = perf_counter_ns() + _WARM_UP_NS
    last: list[float] = []
    while perf_counter_ns() < end_ns:
        last = [*last[-4:], _block(call, calls)]
        if len(last) == 5 and max(last) / min(last) - 1 < _SETTLED:
            return True
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
