"""Shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from edgevision.batch.shards import Shard
from edgevision.batch.worker import Outcome, ShardWorker


class Here:
    """Runs shards on the caller's thread."""

    def run(self, worker: ShardWorker, shards: Sequence[Shard]) -> Generator[Outcome, None, None]:
        """Give an outcome for each shard; see `Backend`."""
        try:
            yield from map(worker, shards)
        finally:
            worker.close()


def open(workers: int, address: str | None) -> Here:
    """Return the backend; see `open_backend`."""
    return Here()
