"""What runs shards, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Sequence
from typing import Protocol

from edgevision.batch.shards import Shard
from edgevision.batch.worker import Outcome, ShardWorker

_NAMES = ("here", "processes", "ray")


class Backend(Protocol):
    """A way to run shards: `open(workers, address)` of a file in this folder makes one."""

    def run(self, worker: ShardWorker, shards: Sequence[Shard]) -> Generator[Outcome, None, None]:
        """Give an outcome for each shard as it ends, in any order.

        A worker that dies is replaced, and its shard begun again. Leaving the iterator ends all
        workers.
        """


def open_backend(name: str, workers: int, address: str | None) -> Backend:
    """Return a backend by its name.

    Args:
        name: "here", "processes" or "ray".
        workers: how many, each with a bundle of its own.
        address: of a cluster.

    Raises:
        ValueError: there is no such backend.
        MissingDependencyError: its package is not installed.
    """
    if name not in _NAMES:
        raise ValueError(f"backend: got '{name}', expected one of {', '.join(_NAMES)}")
    home = importlib.import_module(f"edgevision.batch.backends.{name}")
    found: Backend = home.open(workers, address)
    return found
