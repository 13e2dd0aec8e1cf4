"""What a worker does: scores the frames of one shard after the other, and writes each result."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.batch.frames import Place, Shard, read_frame
from edgevision.batch.runner import Runner
from edgevision.batch.shards import RunFolder
from edgevision.errors import EdgeVisionError, FileReadError, FrameError, RunError
from edgevision.metrics.latency import count_latency
from edgevision.metrics.metric import Metric, Truths, metric_of
from edgevision.metrics.tally import Tally
from edgevision.tasks.camera import Image
from edgevision.tasks.frames import resize
from edgevision.tasks.task import Task, get_task

SHOWN = 100
"""How many of the frames that differ most are kept."""

AGAINST = "against"
"""The kind of the tallies of the bundle that another is held against; see `RunFolder.save`."""

APART = np.dtype([("closeness", "<f8"), ("frame", "<i8")])
"""Frames by how alike two answers are, the least alike first: `closeness` is 0 - `Task.apart`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a shard ended.

    Attributes:
        number: of the shard.
        frames: that it holds.
        bad: frames that were passed over.
        error: why there is no result; None where there is one.
    """

    number: int
    frames: int
    bad: int
    error: EdgeVisionError | OSError | MemoryError | None = None


@dataclass
class Scorer:
    """Scores shards; pickles as its fields, and loads at its first shard.

    Attributes:
        runner: of the bundle.
        against: of the bundle that it is held against; None without one.
        labels: folder of the labels; None without.
        folder: where results go, the same on every machine.
        max_bad: frames that may be passed over in all.
        token: of the command; see `RunFolder.begin_attempt`.
    """

    runner: Runner
    against: Runner | None
    labels: str | None
    folder: RunFolder
    max_bad: int
    token: str
    _loaded: tuple[Task[Any], Metric, Truths | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def __call__(self, shard: Shard) -> Outcome:
        """Score one shard and write its result; never raises what a user can mend."""
        count = len(shard.places)
        try:
            if (
                reported := self.folder.reported(shard)
            ) is not None:  # by a worker that died after it
                return Outcome(shard.number, count, reported["bad"])
            self.folder.begin_attempt(shard, self.token)
            return Outcome(shard.number, count, self._score(shard))
        except (EdgeVisionError, OSError, MemoryError) as error:
            return Outcome(shard.number, count, 0, error)

    def close(self) -> None:
        """Free what is loaded."""
        for runner in filter(None, (self.runner, self.against)):
            runner.close()

    def _score(self, shard: Shard) -> int:
        task, metric, truths = self._load()
        tally, reference = Tally(), Tally()
        apart: list[tuple[float, int]] = []
        bad: list[str] = []
        start = time.perf_counter()
        for number, place in enumerate(shard.places, shard.first):
            try:
                frame, truth = self._read(place, truths)
                found = self.runner.predict(frame)
                first = None if self.against is None else self.against.predict(frame)
            except (FileReadError, FrameError) as error:
                bad.append(place.name)
                tally.write("bad", number, f"{place.name}: {error}"[:1000].replace("\0", ""))
                if len(bad) > self.max_bad:
                    raise RunError(refusal(f"{place.name}: {error}", self.max_bad)) from error
                continue
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
        reported = {
            "frames": len(shard.places) - len(bad),
            "bad": len(bad),
            "seconds": time.perf_counter() - start,
            "target": self.runner.model.selection.artifact.target,
            "worker": os.getpid(),
            "resident_mb": _resident_mb(),
        }
        kept = {"": tally} if self.against is None else {"": tally, AGAINST: reference}
        self.folder.save(shard, kept, reported)
        return len(bad)

    def _read(self, place: Place, truths: Truths | None) -> tuple[Image, Any]:
        photo = read_frame(place)
        size = photo.shape[0], photo.shape[1]
        truth = None if truths is None else truths.of(place.name, size)
        camera = self.runner.model.decoder.camera
        assert camera is not None
        return resize(photo, camera.size), truth

    def _load(self) -> tuple[Task[Any], Metric, Truths | None]:
        if self._loaded is None:
            model = self.runner.model
            task = get_task(model.manifest.task)
            metric = metric_of(task, model.decoder)
            truths = None if self.labels is None else metric.truths(Path(self.labels))
            self._loaded = task, metric, truths
        return self._loaded


def _resident_mb() -> float | None:
    """Return this process's memory; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def refusal(what: str, max_bad: int) -> str:
    """Return what is said when more frames are bad than may be."""
    return (
        f"more than {max_bad} frames cannot be scored: {what}. What is done is kept: mend the "
        f"frames, or pass over more by --max-bad, and run the same command with --resume"
    )
