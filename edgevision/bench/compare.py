"""Whether one thing is slower than another, decided so that a busy machine does not lie.

Worker processes of both sides, and of the first one again as a control, take turns in random order,
a short block each. Of each block the fastest call counts: it is the one that nothing disturbed, and
on a busy machine it varied half as much as the mean. After some rounds each worker loads its
model anew, and after some loads the processes are fresh: where a model's memory happens to lie
makes it a percent faster or slower, and rounds of one load are no independent draws. Each load
gives one number, the median over its rounds of the ratio of the sides; the interval is Student's
over the means of the processes. Where the control differs from its own twin the machine is too
noisy for a verdict, which is no verdict, not a failure.

What slows only some calls (a pause now and then) does not show here; `edgevision bench` tells it.

Sources: Kalibera and Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013), for the levels;
Chen and Revels, "Robust benchmarking in noisy environments" (HPEC 2016), for the fastest call.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bench.environment import environment, unlike
from edgevision.bench.process import Side, Worker, workers
from edgevision.errors import RunError
from edgevision.progress import Progress, silent

Verdict = Literal["same", "slower", "faster", "unclear", "too noisy"]

_NOISE = 0.02
_PART_OF_GATE = 0.4
_BLOCK_NS = 6_000_000
_LEAST_CALLS = 2
_WARM_UP_BLOCKS = 2
_CONFIDENCE = 0.95

Ratios = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    Attributes:
        verdict: of the second side against the first.
        ratio: the second's time for each unit of the first's.
        low: lower end of its 95 % interval.
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
    rounds: int = 11,
    loads: int = 5,
    processes: int = 4,
    progress: Progress = silent,
) -> Comparison:
    """Measure `second` against `first`.

    Args:
        first: what is known.
        second: what is judged.
        gate: the slow-down that matters; the verdict is "slower" if two fifths of it were seen and
            the interval lies above 1, "same" if the interval lies below the gate, and "unclear" if
            it reaches across.
        rounds: of each load.
        loads: of each set of processes.
        processes: how many fresh sets, at least 3.
        progress: told of each load.

    Raises:
        RunError: a worker failed, the sides are unlike, or the machine changed: says in what.
        ValueError: the gate is not between 1 % and 100 %, or there are too few processes.
    """
    if processes < 3:
        raise ValueError(f"processes: got {processes}, expected 3 or more sets")
    if not 0.01 <= gate <= 1:
        raise ValueError(f"gate: got {gate:.3g}, expected 0.01 to 1")
    ratios, controls, times = [], [], []
    before = environment()
    for process in range(processes):
        with workers([first, second, first]) as started:
            _refuse_unlike(started[0], started[1])
            calls = [max(_LEAST_CALLS, int(_BLOCK_NS / _warm_up(worker))) for worker in started]
            shuffle = random.Random(process).shuffle
            found = np.zeros((loads, rounds, 3))
            for load in range(loads):
                if load:
                    for worker in started:
                        _load_again(worker)
                for number in range(rounds):
                    order = [0, 1, 2]
                    shuffle(order)
                    for index in order:
                        found[load, number, index] = _fastest_ns(started[index], calls[index])
                progress("loads", process * loads + load + 1, processes * loads)
        # Both twins stand for the first side: their mean halves its noise.
        ratios.append(found[..., 1] / np.sqrt(found[..., 0] * found[..., 2]))
        controls.append(found[..., 2] / found[..., 0])
        times.append(found[..., 0])
    if changed := unlike(before, environment()):
        raise RunError(
            f"the machine changed while it was measured: {'; '.join(changed)}. Keep it as it is, "
            "and try again"
        )
    return decide(ratios, controls, gate=gate, first_us=float(np.median(times)) / 1e3)


def decide(
    ratios: Sequence[Ratios], controls: Sequence[Ratios], *, gate: float, first_us: float = 0.0
) -> Comparison:
    """Give the verdict; `ratios` and `controls` hold [loads, rounds] of each process."""
    low, ratio, high = interval(ratios)
    _, control, _ = interval(controls)
    least = 1 + _PART_OF_GATE * gate
    verdict: Verdict = "same" if high < 1 + gate else "unclear"
    if abs(control - 1) > _NOISE:
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
        rounds=sum(found.size for found in ratios),
        processes=len(ratios),
        first_us=first_us,
    )


def interval(ratios: Sequence[Ratios]) -> tuple[float, float, float]:
    """Return low, middle and high of the ratio: Student's 95 % interval over the processes."""
    stats = require("scipy.stats", extra="bench")
    sets = np.array([np.log(np.median(found, axis=1)).mean() for found in ratios])
    middle, error = float(sets.mean()), float(sets.std(ddof=1)) / len(sets) ** 0.5
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(sets) - 1)) * error
    low, ratio, high = np.exp([middle - half, middle, middle + half])
    return float(low), float(ratio), float(high)


def _fastest_ns(worker: Worker, calls: int) -> float:
    """Return the time of the fastest call of one block."""
    return int(worker.ask(str(calls)))


def _load_again(worker: Worker) -> None:
    """Let it load its model anew, and warm it up."""
    worker.ask("again")
    _fastest_ns(worker, _LEAST_CALLS)


def _warm_up(worker: Worker) -> float:
    """Run a few blocks; returns the time of the fastest call of the last, in ns."""
    time_ns = _fastest_ns(worker, _LEAST_CALLS)
    for _ in range(_WARM_UP_BLOCKS):
        time_ns = _fastest_ns(worker, max(_LEAST_CALLS, int(_BLOCK_NS / time_ns)))
    return time_ns


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
