"""A metric of the user's own: the mean of each figure, and what it is told when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgevision.metrics.metric import score_fields
from edgevision.metrics.own import score_own

SAMPLES = [
    (f"{i}.npz", {"x": np.full(2, i, np.float32)}, {"want": np.full(2, 2.0 * i)}) for i in range(3)
]
FORMS = {
    "torch": lambda feeds: {"y": feeds["x"] * 2},
    "int8": lambda feeds: {"y": feeds["x"] * 2 + 1},
}


def error(outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> float:
    return float(np.abs(outputs["y"] - labels["want"]).mean())


def both(outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, float]:
    return {"error": error(outputs, labels), "largest": np.max(outputs["y"])}


def test_the_report_has_the_means() -> None:
    one, other = score_own(error, FORMS, SAMPLES)
    assert (one.form, one.figures()) == ("torch", {"error": 0.0})
    assert other.figures() == {"error": 1.0}
    assert score_fields(other)["figures"] == {"error": 1.0}
    assert other.per_class() == ()
    named = score_own(both, FORMS, SAMPLES)
    assert named[1].figures() == {"error": 1.0, "largest": 3.0}


@pytest.mark.parametrize(
    ("metric", "told"),
    [(lambda o, w: o["z"], "KeyError: 'z'"), (lambda o, w: "well", "ValueError")],
)
def test_a_metric_that_fails_is_told_what_it_was_given(metric: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"fails on 0.npz, torch: {told}.*\(y\).*\(want\)"):
        score_own(metric, FORMS, SAMPLES)
