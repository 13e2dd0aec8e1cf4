"""What every worker does: one shard after the other, what is bad passed over, each result kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgevision.batch.runner import Runner
from edgevision.batch.shards import RunFolder, Shard
from edgevision.bundle.printable import printable
from edgevision.bundle.tensors import Image
from edgevision.errors import EdgeVisionError, FileReadError, FrameError, RunError
from edgevision.metrics.tally import Tally
from edgevision.tasks.frames import resize
from edgevision.tasks.places import Place

T = TypeVar("T")

_MAX_REASON = 1000


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


class Taken:
    """What becomes of one shard: what its frames add up to, and those that are bad."""

    def __init__(self, max_bad: int) -> None:
        self.tally, self.bad, self._max_bad = Tally(), 0, max_bad

    def attempt(self, number: int, place: Place, read: Callable[[Place], T]) -> T | None:
        """Return what is read of a frame's place; None if it cannot be, and is passed over.

        Raises:
            RunError: more are bad than may be.
        """
        try:
            return read(place)
        except (FileReadError, FrameError) as error:
            self.bad += 1
            reason = printable(f"{place.name}: {error}")[:_MAX_REASON]
            self.tally.write("bad", number, reason)
            if self.bad > self._max_bad:
                raise RunError(refusal(reason, self._max_bad)) from error
            return None


@dataclass
class ShardWorker:
    """Takes shards; pickles as its fields, and loads at its first shard.

    Attributes:
        runner: of the bundle.
        folder: where results go, the same on every machine.
        max_bad: frames that may be passed over in all.
        token: of the command; see `RunFolder.begin_attempt`.
    """

    runner: Runner
    folder: RunFolder
    max_bad: int
    token: str

    def take(self, shard: Shard, taken: Taken) -> Mapping[str, Tally]:
        """Do the frames of a shard, and return tallies beside `taken.tally`; see `RunFolder.save`.

        Raises:
            EdgeVisionError, OSError, MemoryError: it cannot be done.
        """
        raise NotImplementedError

    def __call__(self, shard: Shard) -> Outcome:
        """Do one shard and write its result; never raises what a user can mend."""
        count = len(shard.places)
        try:
            reported = self.folder.reported(shard)
            if reported is not None:  # by a worker that died after it
                return Outcome(shard.number, count, reported["bad"])
            self.folder.begin_attempt(shard, self.token)
            taken, start = Taken(self.max_bad), time.perf_counter()
            beside = self.take(shard, taken)
            reported = {
                "frames": count - taken.bad,
                "bad": taken.bad,
                "seconds": time.perf_counter() - start,
                "target": self.runner.model.selection.artifact.target,
                "worker": os.getpid(),
                "resident_mb": _resident_mb(),
            }
            self.folder.save(shard, {"": taken.tally, **beside}, reported)
            self.folder.end_attempt(shard, self.token)
            return Outcome(shard.number, count, taken.bad)
        except (EdgeVisionError, OSError, MemoryError) as error:
            return Outcome(shard.number, count, 0, error)

    def resized(self, photo: Image) -> Image:
        """Return a photo at the size of the model's frame."""
        camera: Any = self.runner.model.decoder.camera  # the runner takes no model without
        return resize(photo, camera.size)

    def close(self) -> None:
        """Free what is loaded."""
        self.runner.close()


def refusal(what: str, max_bad: int) -> str:
    """Return what is said when more frames are bad than may be."""
    return (
        f"more than {max_bad} frames cannot be read: {what}. What is done is kept: mend the "
        f"frames, or pass over more by --max-bad, and run the same command with --resume"
    )


def _resident_mb() -> float | None:
    """Return this process's memory; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
