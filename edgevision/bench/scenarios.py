"""Ways to run a model: one call after the other, at a camera's rate, as fast as it goes.

Each gives a trace. Only `paced` is a camera: its frames are due whether or not the last one is
done. The others wait for the model and so hide what a stall would cost; they say how fast, not how
steady.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bench.statistics import Trace
from edgevision.progress import Progress, silent
from edgevision.runtime.model import Model
from edgevision.runtime.ticket import Ticket
from edgevision.runtime.timing import Timings

STAGES = ("wait", "copy in", "compute", "copy out", "decode")
_SETTLED = 0.03
_BLOCKS, _BLOCK_CALLS = 5, 5
_WARM_UP_S = 3.0
_CHUNK = 4096
_NOTE = np.dtype([("due", np.int64), ("done", np.int64), ("stages", np.float64, len(STAGES))])


def warm_up(model: Model, frames: Sequence[Any]) -> tuple[int, bool]:
    """Run until five blocks agree within 3 %; returns the runs it took, and whether they came to.

    It gives up after three seconds.
    """
    end_ns = perf_counter_ns() + int(_WARM_UP_S * 1e9)
    blocks: list[int] = []
    feed = itertools.cycle(frames)
    while perf_counter_ns() < end_ns:
        start_ns = perf_counter_ns()
        for _ in range(_BLOCK_CALLS):
            model(next(feed))
        blocks.append(perf_counter_ns() - start_ns)
        last = blocks[-_BLOCKS:]
        if len(last) == _BLOCKS and max(last) / min(last) - 1 < _SETTLED:
            return len(blocks) * _BLOCK_CALLS, True
    return len(blocks) * _BLOCK_CALLS, False


def single(
    model: Model, frames: Sequence[Any], *, duration_s: float, progress: Progress = silent
) -> Trace:
    """Run one call after the other; a frame is due when its call begins."""
    notes = _Notes()
    start_ns = now_ns = perf_counter_ns()
    end_ns = start_ns + int(duration_s * 1e9)
    for number, frame in enumerate(itertools.cycle(frames)):
        answer = model(frame)
        done_ns = perf_counter_ns()
        notes.due(number, now_ns)
        notes.done(number, now_ns, done_ns, answer.timings)
        now_ns = perf_counter_ns()
        if now_ns >= end_ns:
            return notes.trace(number + 1)
        if number % 16 == 0:
            progress("one call after the other, s", int((now_ns - start_ns) / 1e9), int(duration_s))
    raise AssertionError("a cycle of frames has no end")


def paced(
    model: Model,
    frames: Sequence[Any],
    *,
    fps: float,
    duration_s: float,
    slots: int = 3,
    progress: Progress = silent,
) -> Trace:
    """Run frames that are due at a fixed rate, the newest replacing the one that waits."""
    count = max(1, round(fps * duration_s))
    period_ns = 1e9 / fps
    notes = _Notes(count)
    with model.stream(slots=slots, policy="latest", on_result=notes.note) as pipeline:
        start_ns = perf_counter_ns() + 20_000_000
        for number, frame in zip(range(count), itertools.cycle(frames), strict=False):
            due_ns = start_ns + round(number * period_ns)
            if (wait_ns := due_ns - perf_counter_ns()) > 0:
                time.sleep(wait_ns / 1e9)
            notes.due(number, due_ns)
            pipeline.submit(frame, stamp_ns=due_ns)
            if number % 16 == 0:
                progress(f"frames at {fps:g} fps", number, count)
    return notes.trace(count)


def throughput(
    model: Model,
    frames: Sequence[Any],
    *,
    duration_s: float,
    slots: int = 3,
    progress: Progress = silent,
) -> Trace:
    """Keep every slot full; a frame is due when `submit` is called, which waits for a free slot."""
    notes = _Notes()
    count = 0
    with model.stream(slots=slots, policy="block", on_result=notes.note) as pipeline:
        start_ns = now_ns = perf_counter_ns()
        end_ns = start_ns + int(duration_s * 1e9)
        for frame in itertools.cycle(frames):
            notes.due(count, now_ns)
            pipeline.submit(frame, stamp_ns=now_ns)
            count += 1
            now_ns = perf_counter_ns()
            if now_ns >= end_ns:
                break
            if count % 16 == 0:
                progress("as fast as it goes, s", int((now_ns - start_ns) / 1e9), int(duration_s))
    return notes.trace(count)


class _Notes:
    """Times of frames, in chunks made beforehand: measuring allocates little, and moves nothing."""

    def __init__(self, room: int = _CHUNK) -> None:
        self._room = room
        self._chunks = [self._chunk()]

    def due(self, number: int, due_ns: int) -> None:
        """Note when a frame was due, which makes room for its answer."""
        index, place = divmod(number, self._room)
        if index == len(self._chunks):
            self._chunks.append(self._chunk())
        self._chunks[index]["due"][place] = due_ns

    def done(self, number: int, due_ns: int, done_ns: int, timings: Timings) -> None:
        """Note an answer."""
        index, place = divmod(number, self._room)
        chunk = self._chunks[index]
        told = (timings.wait_ms, timings.copy_in_ms, timings.compute_ms, timings.copy_out_ms)
        chunk["done"][place] = done_ns
        # What is left after the stages that were measured is the answer's making and handing over.
        left_ms = max(0.0, (done_ns - due_ns) / 1e6 - sum(told))
        chunk["stages"][place] = (*told, left_ms)

    def note(self, ticket: Ticket[Any]) -> None:
        """Note a ticket that ran; one that failed or was dropped has no answer."""
        if ticket.error() is None:
            self.done(ticket.sequence, ticket.stamp_ns, ticket.done_ns, ticket.result().timings)

    def trace(self, count: int) -> Trace:
        """Return what was noted of the first `count` frames."""
        whole = np.concatenate(self._chunks)[:count]
        stages = {name: whole["stages"][:, index] for index, name in enumerate(STAGES)}
        return Trace(whole["due"], whole["done"], stages)

    def _chunk(self) -> npt.NDArray[np.void]:
        chunk = np.zeros(self._room, _NOTE)
        chunk["stages"] = np.nan
        return chunk
