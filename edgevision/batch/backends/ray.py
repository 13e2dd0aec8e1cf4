"""Shards on a Ray cluster, or on one that is started here: Ray Data schedules, and sees to workers.

Places of frames go out and outcomes come back; no frame is ever in the object store.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.batch.shards import Shard
from edgevision.batch.worker import Outcome, ShardWorker

LOCAL = "local"
"""The address of a cluster that is started here, and ended with the run."""

_MAX_BLOCKS = 10_000
_STORE_BYTES = 100 << 20


class Ray:
    """Runs shards as a Ray data set through a pool of actors."""

    def __init__(self, workers: int, address: str | None) -> None:
        self._ray = require("ray", extra="ray")
        self._data = require("ray.data", extra="ray")
        self._workers, self._address = workers, address or LOCAL

    def run(self, worker: ShardWorker, shards: Sequence[Shard]) -> Generator[Outcome, None, None]:
        """Give an outcome for each shard; see `Backend`."""
        is_ours = not self._ray.is_initialized()
        if is_ours:
            self._ray.init(**self._cluster(), log_to_driver=False, logging_level=logging.ERROR)
        try:
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            context = self._data.DataContext.get_current()
            context.enable_progress_bars = False
            has_gpus = self._ray.cluster_resources().get("GPU", 0) >= 1
            # Not as an argument of the actors: one that is restarted would miss it.
            rows = [{"work": pickle.dumps((worker, shard))} for shard in shards]
            outcomes = self._data.from_items(
                rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)
            ).map_batches(
                _Actor,
                batch_size=1,
                batch_format="numpy",
                compute=self._data.ActorPoolStrategy(size=self._workers),
                num_cpus=1,
                num_gpus=1 if has_gpus and worker.runner.uses_gpu else 0,
            )
            for row in outcomes.iter_rows():
                yield pickle.loads(row["outcome"])
        finally:
            if is_ours:
                self._ray.shutdown()

    def _cluster(self) -> dict[str, Any]:
        if self._address != LOCAL:
            return {"address": self._address}
        return {
            "address": LOCAL,
            "num_cpus": self._workers,
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }


def open(workers: int, address: str | None) -> Ray:
    """Return the backend; see `open_backend`.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    return Ray(workers, address)


class _Actor:
    """Scores shards with the first worker that it is given: all are copies of one."""

    def __init__(self) -> None:
        self._worker: ShardWorker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        outcomes = []
        for row in batch["work"]:
            worker, shard = pickle.loads(row)
            self._worker = self._worker or worker
            outcomes.append(pickle.dumps(self._worker(shard)))
        return {"outcome": np.array(outcomes, object)}
