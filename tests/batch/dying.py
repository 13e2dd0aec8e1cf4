"""A scorer that ends its own worker process, as a crash in a driver would."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgevision.batch.frames import Place, Shard
from edgevision.batch.scorer import Scorer


@dataclass
class DyingScorer(Scorer):
    """Ends the process at one shard, for the first `deaths` times.

    Attributes:
        marks: folder that keeps count.
        at: the shard.
        deaths: how often.
    """

    marks: str = ""
    at: int = 0
    deaths: int = 0

    def _read(self, place: Place, truths: object) -> object:  # type: ignore[override]
        if self.shard.number == self.at:
            died = len(list(Path(self.marks).iterdir()))
            if died < self.deaths:
                (Path(self.marks) / str(died)).touch()
                os._exit(9)
        return super()._read(place, truths)  # type: ignore[arg-type]

    def _score(self, shard: Shard) -> int:
        self.shard = shard
        return super()._score(shard)
