"""The figure that gates judge by: one a task, with a direction, and never a pass without it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from edgevision.metrics.metric import judge
from edgevision.tasks.task import Headline, get_task, task_names


@dataclass(frozen=True)
class Figures:
    form: str
    value: float | None

    def figures(self) -> dict[str, float | None]:
        return {"BLEU-1": 1.0, "it": self.value}

    def per_class(self) -> tuple[float, ...]:
        return ()


UP = Headline("it", max_loss=0.01)
DOWN = Headline("it", max_loss=0.01, is_higher_better=False)


@pytest.mark.parametrize(
    ("headline", "before", "after", "passed"),
    [
        (UP, 0.72, 0.711, True),
        (UP, 0.72, 0.709, False),
        (UP, 0.72, 0.9, True),
        (DOWN, 0.10, 0.109, True),
        (DOWN, 0.10, 0.12, False),
        (DOWN, 0.10, 0.05, True),
        (UP, None, 0.9, False),
        (UP, 0.9, None, False),
        (UP, math.nan, 0.9, False),
        (UP, 0.9, math.nan, False),
    ],
)
def test_the_headline_figure_decides(
    headline: Headline, before: float | None, after: float | None, passed: bool
) -> None:
    verdict = judge(headline, Figures("torch", before), Figures("int8", after))
    assert verdict.passed is passed
    is_defined = all(value is not None and not math.isnan(value) for value in (before, after))
    assert ("undefined" in verdict.text) is not is_defined


def test_a_gate_may_allow_another_loss() -> None:
    sides = Figures("torch", 0.7), Figures("int8", 0.65)
    assert not judge(UP, *sides).passed
    assert judge(UP, *sides, max_loss=0.1).passed


def test_every_task_with_a_metric_has_one_headline() -> None:
    found = {name: get_task(name).headline for name in task_names()}
    named = {name: headline.name for name, headline in found.items() if headline is not None}
    assert named.items() >= {"semantic": "mIoU", "instance": "mask AP", "caption": "CIDEr"}.items()
    assert all(headline is None or headline.max_loss > 0 for headline in found.values())
