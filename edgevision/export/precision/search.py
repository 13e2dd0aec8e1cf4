"""The most INT8 that stays inside a budget: which layers go back to float, by what they cost.

All layers start as INT8. Where that costs too much, each layer's harm is measured on a few samples:
how much less is lost without it. Layers go back in the order of harm for each multiply-accumulate,
twice as many at a time until the budget holds on all samples; a bisection finds the fewest, and one
by one each is tried as INT8 again, the largest first. Every step depends only on what was measured,
so the same graph and data give the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from edgevision.progress import Progress, silent


class Loss(Protocol):
    """What a graph loses with these layers in INT8."""

    def __call__(self, int8: Collection[str], *, on_all: bool) -> float:
        """Return the loss on all samples, or on the few."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a layer before the search: how large it is, and its noise."""

    macs: int
    snr_db: float


@dataclass(frozen=True, slots=True)
class Step:
    """A graph that was measured on all samples.

    Attributes:
        int8: its INT8 layers, in the graph's order.
        share: of the multiply-accumulates in INT8, 0 to 1.
        loss: what it loses.
    """

    int8: tuple[str, ...]
    share: float
    loss: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        best: the most INT8 inside the budget; where nothing is, the graph that loses least.
        holds: whether it is inside.
        is_complete: whether the search ended by itself, and not for want of time.
        steps: every graph that was measured on all samples, in order.
        harm: of each layer, how much less is lost on a few samples without it; empty where all
            layers may be INT8.
    """

    best: Step
    holds: bool
    is_complete: bool
    steps: tuple[Step, ...]
    harm: Mapping[str, float]


class _OutOfTimeError(Exception):
    """The search shall end with what it has."""


def search(
    layers: Mapping[str, Candidate],
    loss: Loss,
    budget: float,
    *,
    macs_beside: int = 0,
    is_over: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
) -> Found:
    """Return the layers that can be INT8 within `budget`.

    Args:
        layers: all that can be INT8, in the graph's order.
        loss: measures a set of them.
        budget: what may be lost on all samples.
        macs_beside: of layers that are float in any case; they count in the shares.
        is_over: whether no more shall be measured; asked before each but the first.
        progress: told how many were measured.
    """
    total_macs = max(1, macs_beside + sum(layer.macs for layer in layers.values()))
    work = _Search(layers, total_macs, loss, budget, is_over, progress)
    try:
        work.run()
    except _OutOfTimeError:
        return work.found(is_complete=False)
    return work.found(is_complete=True)


class _Search:
    def __init__(
        self,
        layers: Mapping[str, Candidate],
        total_macs: int,
        loss: Loss,
        budget: float,
        is_over: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self._layers, self._loss, self._budget = layers, loss, budget
        self._is_over, self._progress = is_over, progress
        self._total_macs = total_macs
        self._steps: dict[frozenset[str], Step] = {}
        self._harm: dict[str, float] = {}
        # Sensitivities, the doublings and the bisection, and a few one by one.
        self._count, self._guess = 0, len(layers) + 2 * len(layers).bit_length() + 2

    def run(self) -> None:
        everything = frozenset(self._layers)
        if self._holds(everything):
            return
        order = self._by_harm(everything)
        back = self._fewest(everything, order)
        kept = everything - set(order[:back])
        for name in sorted(order[:back], key=lambda n: -self._layers[n].macs):
            if self._holds(kept | {name}):
                kept |= {name}

    def found(self, *, is_complete: bool) -> Found:
        """Return the best of what was measured."""
        steps = tuple(self._steps.values())
        inside = [step for step in steps if step.int8 and step.loss <= self._budget]
        best = (
            max(inside, key=lambda step: (step.share, -step.loss))
            if inside
            else min(steps, key=lambda step: (step.loss, -step.share))
        )
        return Found(best, bool(inside), is_complete, steps, self._harm)

    def _by_harm(self, everything: frozenset[str]) -> list[str]:
        """Return the layers, those first that do most harm for what they compute."""
        whole = self._measure(everything, on_all=False)
        for name in self._layers:
            self._harm[name] = whole - self._measure(everything - {name}, on_all=False)

        def key(name: str) -> tuple[float, float]:
            layer, harm = self._layers[name], self._harm[name]
            # Where nothing was seen on a few samples, noise says which is the next.
            return (-harm / max(1, layer.macs) if harm > 0 else 0.0, layer.snr_db)

        return sorted(self._layers, key=key)

    def _fewest(self, everything: frozenset[str], order: list[str]) -> int:
        """Return how many of `order` must go back; all but the last where nothing holds."""
        most = len(order) - 1
        low, high = 0, 1
        while high < most and not self._holds(everything - set(order[:high])):
            low, high = high, 2 * high
        high = min(high, most)
        while high - low > 1:
            middle = (low + high) // 2
            if self._holds(everything - set(order[:middle])):
                high = middle
            else:
                low = middle
        if high > 0:
            self._holds(everything - set(order[:high]))
        return high

    def _holds(self, int8: frozenset[str]) -> bool:
        step = self._steps.get(int8)
        if step is None:
            names = tuple(name for name in self._layers if name in int8)
            macs = sum(self._layers[name].macs for name in names)
            found = self._measure(int8, on_all=True)
            step = self._steps[int8] = Step(names, macs / self._total_macs, found)
        return step.loss <= self._budget

    def _measure(self, int8: frozenset[str], *, on_all: bool) -> float:
        if self._count and self._is_over():
            raise _OutOfTimeError
        self._progress("searching the budget", self._count, max(self._guess, self._count + 1))
        self._count += 1
        return self._loss(int8, on_all=on_all)
