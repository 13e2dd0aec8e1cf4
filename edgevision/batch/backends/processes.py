"""Shards in processes of this machine, spawned: a fork would share what engines hold."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
from collections import Counter
from collections.abc import Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from edgevision.batch.shards import Shard
from edgevision.batch.worker import Outcome, ShardWorker
from edgevision.errors import RunError

# A shard that ends its workers is seen by the workers; this is for those that never come to it.
_MAX_DEATHS = 5


class Processes:
    """Runs shards in processes, each with a pipe of its own.

    A pipe ends with either side: a dead worker is seen at once, with the shard that it had, and
    workers whose command was killed end after the shard at hand. The pool of the standard library
    ends as a whole when a worker dies, and its workers outlive a command that was killed.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")

    def run(self, worker: ShardWorker, shards: Sequence[Shard]) -> Generator[Outcome, None, None]:
        """Give an outcome for each shard; see `Backend`."""
        waiting = iter(shards)
        died: Counter[int] = Counter()
        busy: dict[Connection, tuple[BaseProcess, Shard]] = {}
        try:
            for shard in itertools.islice(waiting, self._workers):
                self._start(worker, shard, busy)
            while busy:
                for pipe in cast("list[Connection]", wait(list(busy))):
                    process, shard = busy.pop(pipe)
                    try:
                        outcome: Outcome = pipe.recv()
                    except (EOFError, ConnectionError):
                        pipe.close()
                        process.join()
                        died[shard.number] += 1
                        if died[shard.number] <= _MAX_DEATHS:
                            self._start(worker, shard, busy)
                            continue
                        reason = f"workers cannot be started: exit code {process.exitcode}"
                        yield Outcome(shard.number, 0, 0, RunError(reason))
                        continue
                    following = next(waiting, None)
                    if following is None:
                        pipe.close()
                        process.join()
                    else:
                        self._send(pipe, process, following, busy)
                    yield outcome
        finally:
            for pipe, (process, _) in busy.items():
                pipe.close()
                process.terminate()
                process.join()

    def _start(
        self, worker: ShardWorker, shard: Shard, busy: dict[Connection, tuple[BaseProcess, Shard]]
    ) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(worker, theirs), daemon=True)
        # A Ctrl-C goes to the whole group, and this process ends its workers itself. The tracker is
        # begun first: it leaves the signal unblocked.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._send(ours, process, shard, busy)

    def _send(
        self,
        pipe: Connection,
        process: BaseProcess,
        shard: Shard,
        busy: dict[Connection, tuple[BaseProcess, Shard]],
    ) -> None:
        busy[pipe] = process, shard
        with contextlib.suppress(ConnectionError):  # a dead one is seen when it is waited for
            pipe.send(shard)


def open(workers: int, address: str | None) -> Processes:
    """Return the backend; see `open_backend`."""
    return Processes(workers)


def _work(worker: ShardWorker, pipe: Connection) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(worker(pipe.recv()))
