"""Whether one thing is slower than another, decided so that a busy machine does not lie.

Worker processes of both sides, and of the first one again as a control, take turns in random
order, one short block each: a single call if it takes a millisecond or more, since a shared
machine changes its speed within tens of them, and calls that lie close together share its noise.
Of a block with several calls the fastest counts. After some rounds each worker loads its model
again, and after some loads the processes are fresh: where a model's memory lies makes it a
percent faster or slower, and rounds of one load are no independent draws. Each load gives one
number, the mean of the middle half of the logarithms of its rounds' ratios. Now and then a process
is a tenth slower for all its life, so the fifth of the loads at either end does not count either;
the interval is Yuen's over the loads, or over the sets of processes where these differ by more than
their loads explain. Where the A/A control differs from itself, and by more than half of what is
found between the sides, the machine is too noisy for a verdict, which is neither a verdict nor a
failure.

What slows only some calls (a pause now and then) does not show here; `edgevision bench` tells it.

Sources: Kalibera and Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013), for the levels;
Chen and Revels, "Robust benchmarking in noisy environments" (HPEC 2016), for the fastest call;
Yuen, "The two-sample trimmed t" (Biometrika 1974), for the interval.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bench.gate.process import Side, Worker, workers
from edgevision.errors import RunError
from edgevision.machine.environment import environment, unlike
from edgevision.progress import Progress, silent

Verdict = Literal["same", "slower", "faster", "unclear", "too noisy"]

_NOISE = 0.02
_PART_OF_GATE = 0.4
_BLOCK_NS = 1_000_000
_WARM_UP_CALLS = 3
_MIN_ROUNDS = 8
_CONFIDENCE = 0.99
# Sets count as different if chance alone would make them so in one of fifty comparisons.
_CHANCE = 0.02
_TRIMMED, _TRIMMED_LOADS = 0.25, 0.2
_MIN_PROCESSES, _MIN_LOADS = 5, 2  # so that of the sets three are left
# A decision takes so long, and so many calls of a slow model, but no longer than the last.
_MIN_S, _CALLS, _MAX_S = 6.0, 2000, 40.0

Ratios = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    Attributes:
        verdict: of the second side against the first.
        ratio: the second's time for each unit of the first's.
        low: lower end of its 99 % interval.
        high: upper end.
        control: the first side against itself in the same rounds.
        gate: the slow-down that is looked for, e.g. 0.05.
        rounds: how many, over all processes.
        processes: how many times they were fresh.
        first_us: median of one call of the first side; holds for this machine and hour.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    control: float
    gate: float
    rounds: int
    processes: int
    first_us: float


def compare(
    first: Side,
    second: Side,
    *,
    gate: float = 0.05,
    loads: int = 3,
    processes: int = 7,
    progress: Progress = silent,
) -> Comparison:
    """Measure `second` against `first`, for some six seconds or, if a call is slow, longer.

    Args:
        first: what is known.
        second: what is judged.
        gate: the slow-down that matters; the verdict is "slower" if two fifths of it were seen and
            the interval lies above 1, "same" if the interval lies below the gate, and "unclear" if
            it reaches across.
        loads: of each set of processes, at least 2.
        processes: how many fresh sets, at least 5.
        progress: told of each load.

    Raises:
        RunError: a worker failed, the sides are unlike, or the machine changed: says in what.
        ValueError: the gate is not between 1 % and 100 %, or there are too few processes or loads.
    """
    if processes < _MIN_PROCESSES or loads < _MIN_LOADS:
        raise ValueError(
            f"got {processes} sets of processes with {loads} loads, expected "
            f"{_MIN_PROCESSES} or more with {_MIN_LOADS}"
        )
    if not 0.01 <= gate <= 1:
        raise ValueError(f"gate: got {gate:.3g}, expected 0.01 to 1")
    ratios, controls, times = [], [], []
    before = environment()
    clock = _Clock(processes * loads)
    for process in range(processes):
        with workers([first, second, first]) as started:
            _refuse_unlike(started[0], started[1])
            call_ns = [_warm_up(worker) for worker in started]
            calls = [max(1, int(_BLOCK_NS / time_ns)) for time_ns in call_ns]
            clock.started(processes - process - 1, max(call_ns))
            shuffle = random.Random(process).shuffle
            for load in range(loads):
                if load:
                    for worker in started:
                        _load_again(worker)
                found = np.log(_rounds(started, calls, shuffle, clock))
                # Both controls stand for the first side: their mean halves its noise.
                ratios.append(_middle(found[:, 1] - (found[:, 0] + found[:, 2]) / 2))
                controls.append(_middle(found[:, 2] - found[:, 0]))
                times.append(found[:, 0])
                progress("loads", process * loads + load + 1, processes * loads)
    if changed := unlike(before, environment()):
        raise RunError(
            f"the machine changed while it was measured: {'; '.join(changed)}. Keep it as it is, "
            "and try again"
        )
    shape = (processes, loads)
    return decide(
        np.reshape(ratios, shape),
        np.reshape(controls, shape),
        gate=gate,
        rounds=sum(map(len, times)),
        first_us=float(np.exp(np.median(np.concatenate(times)))) / 1e3,
    )


def decide(
    ratios: Ratios, controls: Ratios, *, gate: float, rounds: int = 0, first_us: float = 0.0
) -> Comparison:
    """Give the verdict; `ratios` and `controls` hold the logarithm [process, load]."""
    low, ratio, high = interval(ratios)
    _, control, _ = interval(controls)
    least = 1 + _PART_OF_GATE * gate
    verdict: Verdict = "same" if high < 1 + gate else "unclear"
    if abs(control - 1) > max(_NOISE, abs(ratio - 1) / 2):
        verdict = "too noisy"
    elif ratio > least and low > 1:
        verdict = "slower"
    elif ratio < 1 / least and high < 1:
        verdict = "faster"
    return Comparison(
        verdict=verdict,
        ratio=ratio,
        low=low,
        high=high,
        control=control,
        gate=gate,
        rounds=rounds,
        processes=len(ratios),
        first_us=first_us,
    )


def interval(ratios: Ratios) -> tuple[float, float, float]:
    """Return low, middle and high of the ratio from its logarithm [process, load]."""
    stats = require("scipy.stats", extra="bench")
    sets_differ = stats.f_oneway(*ratios).pvalue < _CHANCE
    units = ratios.mean(axis=1) if sets_differ else ratios.ravel()
    ends = (_TRIMMED_LOADS, _TRIMMED_LOADS)
    low, high = stats.mstats.trimmed_mean_ci(units, ends, alpha=1 - _CONFIDENCE)
    middle = stats.mstats.trimmed_mean(units, ends)
    return float(np.exp(low)), float(np.exp(middle)), float(np.exp(high))


class _Clock:
    """Shares the time of a decision among its loads, whatever the starts of processes take."""

    def __init__(self, loads: int) -> None:
        self._loads = loads
        self._begin_ns = perf_counter_ns()
        self._budget_ns = 0.0
        self._start_ns = 0
        self._later_ns = 0

    def started(self, sets_left: int, call_ns: float) -> None:
        """Note that a set of processes is ready; those left will take as long to start."""
        now_ns = perf_counter_ns()
        if not self._budget_ns:
            self._budget_ns = min(max(_MIN_S * 1e9, _CALLS * call_ns), _MAX_S * 1e9)
            self._start_ns = now_ns - self._begin_ns
        self._later_ns = sets_left * self._start_ns

    def load_ends_ns(self) -> float:
        """Return when the load that begins now shall end."""
        now_ns = perf_counter_ns()
        left_ns = self._begin_ns + self._budget_ns - self._later_ns - now_ns
        self._loads -= 1
        return now_ns + left_ns / (self._loads + 1)


def _rounds(
    started: Sequence[Worker],
    calls: Sequence[int],
    shuffle: Callable[[list[int]], None],
    clock: _Clock,
) -> Ratios:
    """Return the times of one load in ns, [round, worker]."""
    end_ns = clock.load_ends_ns()
    found: list[list[float]] = []
    while len(found) < _MIN_ROUNDS or perf_counter_ns() < end_ns:
        order = list(range(len(started)))
        shuffle(order)
        times = [0.0] * len(started)
        for index in order:
            times[index] = _fastest_ns(started[index], calls[index])
        found.append(times)
    return np.array(found)


def _middle(values: Ratios) -> float:
    """Return the mean of the middle half."""
    return float(require("scipy.stats", extra="bench").trim_mean(values, _TRIMMED))


def _fastest_ns(worker: Worker, calls: int) -> float:
    """Return the time of the fastest call of one block."""
    return int(worker.ask(str(calls)))


def _load_again(worker: Worker) -> None:
    """Let it load its model again, and warm it up."""
    worker.ask("again")
    _fastest_ns(worker, _WARM_UP_CALLS)


def _warm_up(worker: Worker) -> float:
    """Run a few blocks; returns the time of the fastest call of the last, in ns."""
    time_ns = _fastest_ns(worker, _WARM_UP_CALLS)
    return _fastest_ns(worker, max(_WARM_UP_CALLS, int(_BLOCK_NS / time_ns)))


def _refuse_unlike(first: Worker, second: Worker) -> None:
    """Refuse to compare what does not do the same work."""
    keys = ("task", "precision", "inputs", "device")
    differences = [
        f"{key}: {first.told.get(key)} against {second.told.get(key)}"
        for key in keys
        if first.told.get(key) != second.told.get(key)
    ]
    if differences:
        raise RunError(
            f"'{first.side.name}' and '{second.side.name}' do not do the same work, so their times "
            f"must not be compared: {'; '.join(differences)}. `edgevision bench` shows both."
        )
