"""What a build made, for whoever asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgevision.bundle.directory import Bundle
from edgevision.bundle.parity import ParityReport
from edgevision.engines.finish import Finish
from edgevision.metrics.metric import Score


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build made.

    Attributes:
        bundle: the finished bundle.
        parity: each step's graph against the FP32 reference, on the golden samples.
        scores: each form in the task's metric, on the evaluation folder; empty without one.
        seconds: how long each target's engine took to build.
        cached: the targets whose engines were built before and came from the cache.
        finished: what was finished beside the bundle, by target.
        max_loss: what a form may lose of the task's figure; None for what its gates allow.
    """

    bundle: Bundle
    parity: tuple[ParityReport, ...]
    scores: tuple[Score, ...]
    seconds: Mapping[str, float]
    cached: frozenset[str] = frozenset()
    finished: Mapping[str, Finish] = field(default_factory=dict)
    max_loss: float | None = None
