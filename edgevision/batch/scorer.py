"""The worker that scores: what its frames add up to in the task's metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.batch.runner import Runner
from edgevision.batch.shards import Shard
from edgevision.batch.worker import ShardWorker, Taken
from edgevision.metrics.latency import count_latency
from edgevision.metrics.metric import Metric, Truths, metric_for
from edgevision.metrics.tally import Tally
from edgevision.tasks.places import Place, read_frame
from edgevision.tasks.task import Task, get_task

SHOWN = 100
"""How many of the frames that differ most are kept."""

AGAINST = "against"
"""The kind of the tallies of the bundle that another is held against; see `RunFolder.save`."""

APART = np.dtype([("closeness", "<f8"), ("frame", "<i8")])
"""Frames by how alike two answers are, the least alike first: `closeness` is 0 - `Task.apart`."""


@dataclass
class Scorer(ShardWorker):
    """Scores shards; see `ShardWorker`.

    Attributes:
        against: of the bundle that it is held against; None without one.
        labels: folder of the labels; None without.
    """

    against: Runner | None
    labels: str | None
    _loaded: tuple[Task[Any], Metric, Truths | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def take(self, shard: Shard, taken: Taken) -> Mapping[str, Tally]:
        """Score the frames of a shard."""
        task, metric, _ = self._load()
        tally, reference = taken.tally, Tally()
        apart: list[tuple[float, int]] = []
        for number, place in enumerate(shard.places, shard.first):
            if (answered := taken.attempt(number, place, self._answer)) is None:
                continue
            truth, found, first = answered
            metric.add(tally, number, truth, found, first)
            count_latency(tally, found.timings.total_ms)
            if first is not None:
                metric.add(reference, number, truth, first, first)
                count_latency(reference, first.timings.total_ms)
                apart.append((0.0 - task.apart(first, found), number))
        tally.extend("apart", np.array(sorted(apart)[:SHOWN], APART))
        for closeness, _ in apart:
            tally.add("apart", 0.0 - closeness)
        tally.count("frames apart", sum(closeness < 0 for closeness, _ in apart))
        return {} if self.against is None else {AGAINST: reference}

    def close(self) -> None:
        """Free what is loaded."""
        super().close()
        if self.against is not None:
            self.against.close()

    def _answer(self, place: Place) -> tuple[Any, Any, Any]:
        """Return what is true of a frame, and what each bundle says of it."""
        _, _, truths = self._load()
        photo = read_frame(place)
        truth = None if truths is None else truths.of(place.name, photo.shape[:2])
        frame = self.resized(photo)
        first = None if self.against is None else self.against.predict(frame)
        return truth, self.runner.predict(frame), first

    def _load(self) -> tuple[Task[Any], Metric, Truths | None]:
        if self._loaded is None:
            model = self.runner.model
            task = get_task(model.manifest.task)
            metric = metric_for(task, model.decoder)
            truths = None if self.labels is None else metric.truths(Path(self.labels))
            self._loaded = task, metric, truths
        return self._loaded
