"""A metric of the user's own, for tensors: a callable over a sample's outputs and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgevision.bundle.tensors import Arrays
from edgevision.metrics.metric import Score
from edgevision.progress import Progress, silent

OwnMetric = Callable[[Arrays, Arrays], float | Mapping[str, float]]
"""From the outputs and the labels of one sample, by name, to a figure or to some by name."""


@dataclass(frozen=True, slots=True)
class OwnScore(Score):
    """The mean of a user's figures over a folder."""

    means: Mapping[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return dict(self.means)


def score_own(
    metric: OwnMetric,
    forms: Mapping[str, Callable[[Arrays], Arrays]],
    samples: Iterable[tuple[str, Arrays, Arrays]],
    progress: Progress = silent,
) -> list[OwnScore]:
    """Score each form on samples: a name for messages, the feeds and the labels of each.

    Raises:
        ValueError: the metric raises, or gives what is not a number or numbers by name.
    """
    found: dict[str, list[Mapping[str, float]]] = {form: [] for form in forms}
    for number, (name, feeds, labels) in enumerate(samples):
        progress("evaluating", number, 0)
        for form, run in forms.items():
            found[form].append(_figures(metric, run(feeds), labels, f"{name}, {form}"))
    return [
        OwnScore(form, {key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
        for form, rows in found.items()
    ]


def _figures(metric: OwnMetric, outputs: Arrays, labels: Arrays, where: str) -> dict[str, float]:
    name = getattr(metric, "__name__", "metric")
    try:
        said = metric(outputs, labels)
        named = said if isinstance(said, Mapping) else {name: said}
        return {key: float(value) for key, value in named.items()}
    except Exception as error:  # the user's code may raise anything
        raise ValueError(
            f"metric '{name}' fails on {where}: {type(error).__name__}: {error}. It is given the "
            f"outputs ({', '.join(outputs)}) and the labels ({', '.join(labels) or 'none'}), by "
            "name, and returns a number, or numbers by name"
        ) from error
