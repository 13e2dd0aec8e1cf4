"""Ways of doing one thing, timed in shuffled rounds: ratios that hold on a noisy machine.

In each round every way runs one short block, in random order; a statistic is computed per round,
and its median over the rounds is told with a bootstrap interval. Unpaired medians differ by a
factor of 1.4 between two runs of the same code on a shared machine; paired ones stay within one
percent.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from edgevision._optional import require

_BLOCK_NS = 700_000
_SETTLED = 0.03
_CONFIDENCE = 0.99

Call = Callable[[], object]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over rounds.

    Attributes:
        value: the median.
        low: lower end of its 99 % interval, by bootstrap over rounds.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each way took in each round.

    Attributes:
        times_ns: by name, the mean time of a call in each round.
        settled: whether the warm-up of every way came to rest.
    """

    times_ns: Mapping[str, Times]
    settled: bool

    def median_us(self, name: str) -> float:
        """Return the median time of a call; it holds for this machine at this hour."""
        return float(np.median(self.times_ns[name])) / 1e3

    def ratio(self, name: str, *, over: str) -> Estimate:
        """Return how long `name` takes for each unit of the time of `over`."""
        return estimate(self.times_ns[name] / self.times_ns[over])


def measure(
    calls: Mapping[str, Call],
    *,
    rounds: int = 60,
    least_calls: int = 5,
    warm_up_s: float = 3.0,
    seed: int = 0,
) -> Rounds:
    """Time all `calls` against each other.

    Args:
        calls: by name.
        rounds: of one block of each.
        least_calls: in a block; a block takes 0.7 ms at least.
        warm_up_s: after which a call that never came to rest is measured as it is.
        seed: of the order.
    """
    sizes = {name: _block_size(call, least_calls) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(seed).shuffle
    with _no_collection():
        rested = [_warm_up(calls[name], sizes[name], warm_up_s) for name in calls]
        for _ in range(rounds):
            order = list(calls)
            shuffle(order)
            for name in order:
                times[name].append(_block_ns(calls[name], sizes[name]))
    return Rounds({name: np.array(found) for name, found in times.items()}, all(rested))


def estimate(values: Times) -> Estimate:
    """Return the median over rounds with its interval."""
    interval = (
        require("scipy.stats", extra="bench")
        .bootstrap((values,), np.median, confidence_level=_CONFIDENCE, method="percentile", rng=0)
        .confidence_interval
    )
    return Estimate(float(np.median(values)), float(interval.low), float(interval.high))


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core.

    Waking a thread on another, idle core of a virtual machine takes 13 us or 60, as the scheduler
    pleases; on one core a hand-over is a context switch and nothing else.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _block_size(call: Call, least_calls: int) -> int:
    """Return how many calls make a block."""
    for _ in range(3):
        call()
    return max(least_calls, int(_BLOCK_NS / _block_ns(call, least_calls)))


def _block_ns(call: Call, calls: int) -> float:
    """Return the mean time of a call over one block."""
    start_ns = perf_counter_ns()
    for _ in range(calls):
        call()
    return (perf_counter_ns() - start_ns) / calls


def _warm_up(call: Call, calls: int, seconds: float) -> bool:
    """Run until five blocks agree; return whether they came to."""
    end_ns = perf_counter_ns() + int(seconds * 1e9)
    last: list[float] = []
    while perf_counter_ns() < end_ns:
        last = [*last[-4:], _block_ns(call, calls)]
        if len(last) == 5 and max(last) / min(last) - 1 < _SETTLED:
            return True
    return False


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
