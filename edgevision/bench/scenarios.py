"""Ways to run a model: one call after the other, at a camera's rate, as fast as it goes.

Each gives a trace. Only `paced`, and `multi` with it, is a camera: its frames are due whether or
not the last one is done. The others wait for the model and so hide what a stall would cost; they
say how fast, not how steady. Ctrl-C ends a run early; what was measured until then is its trace.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bench.statistics import Trace
from edgevision.progress import Progress, silent
from edgevision.runtime.model import Model
from edgevision.runtime.stream.ticket import Ticket
from edgevision.tasks.timings import Timings

STAGES = ("wait", "copy in", "compute", "copy out", "decode")
_SETTLED = 0.03
_BLOCKS, _BLOCK_CALLS = 5, 5
_WARM_UP_S = 3.0
_CHUNK = 4096
_NOTE = np.dtype([("due", np.int64), ("done", np.int64), ("stages", np.float64, len(STAGES))])


def warm_up(model: Model[Any], frames: Sequence[Any]) -> tuple[int, bool]:
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
    model: Model[Any], frames: Sequence[Any], *, duration_s: float, progress: Progress = silent
) -> Trace:
    """Run one call after the other; a frame is due when its call begins."""
    notes = Notes()
    start_ns = now_ns = perf_counter_ns()
    end_ns = start_ns + int(duration_s * 1e9)
    count = 0
    try:
        for frame in itertools.cycle(frames):
            now_ns = noted(model, frame, notes, count, now_ns)
            count += 1
            if now_ns >= end_ns:
                break
            if count % 16 == 0:
                seconds = int((now_ns - start_ns) / 1e9)
                progress("one call after the other, s", seconds, int(duration_s))
    except KeyboardInterrupt:
        return _cut(notes.trace(count))
    return notes.trace(count)


def noted(model: Callable[[Any], Any], frame: Any, notes: Notes, number: int, due_ns: int) -> int:
    """Run one frame and note it; returns when the next is due, which is at once."""
    answer = model(frame)
    done_ns = perf_counter_ns()
    notes.due(number, due_ns)
    notes.done(number, due_ns, done_ns, answer.timings)
    return perf_counter_ns()


def paced(
    model: Model[Any],
    frames: Sequence[Any],
    *,
    fps: float,
    duration_s: float,
    slots: int = 3,
    progress: Progress = silent,
    start_ns: int = 0,
    stop: threading.Event | None = None,
) -> Trace:
    """Run frames that are due at a fixed rate, the newest replacing the one that waits.

    The first is due at `start_ns`, or at once; `stop` ends it early, as Ctrl-C does.
    """
    count = max(1, round(fps * duration_s))
    period_ns = 1e9 / fps
    notes = Notes(count)
    submitted, is_cut = 0, False
    with model.stream(slots=slots, policy="latest", on_result=notes.note) as pipeline:
        start_ns = start_ns or perf_counter_ns() + 20_000_000
        try:
            for number, frame in zip(range(count), itertools.cycle(frames), strict=False):
                due_ns = start_ns + round(number * period_ns)
                if (wait_ns := due_ns - perf_counter_ns()) > 0:
                    time.sleep(wait_ns / 1e9)
                if stop is not None and stop.is_set():
                    is_cut = True
                    break
                notes.due(number, due_ns)
                pipeline.submit(frame, stamp_ns=due_ns)
                submitted = number + 1
                if number % 16 == 0:
                    progress(f"frames at {fps:g} fps", number, count)
        except KeyboardInterrupt:
            is_cut = True
    trace = notes.trace(submitted)
    return _cut(trace) if is_cut else trace


def throughput(
    model: Model[Any],
    frames: Sequence[Any],
    *,
    duration_s: float,
    slots: int = 3,
    progress: Progress = silent,
) -> Trace:
    """Keep every slot full; a frame is due when `submit` is called, which waits for a free slot."""
    notes = Notes()
    count, is_cut = 0, False
    with model.stream(slots=slots, policy="block", on_result=notes.note) as pipeline:
        start_ns = now_ns = perf_counter_ns()
        end_ns = start_ns + int(duration_s * 1e9)
        try:
            for frame in itertools.cycle(frames):
                notes.due(count, now_ns)
                pipeline.submit(frame, stamp_ns=now_ns)
                count += 1
                now_ns = perf_counter_ns()
                if now_ns >= end_ns:
                    break
                if count % 16 == 0:
                    seconds = int((now_ns - start_ns) / 1e9)
                    progress("as fast as it goes, s", seconds, int(duration_s))
        except KeyboardInterrupt:
            is_cut = True
    return _cut(notes.trace(count)) if is_cut else notes.trace(count)


def multi(
    models: Sequence[Model[Any]],
    frames: Sequence[Sequence[Any]],
    *,
    fps: float,
    duration_s: float,
    slots: int = 3,
    progress: Progress = silent,
) -> list[Trace]:
    """Run several models at once, each as `paced`, all due on the same clock."""
    stop = threading.Event()
    start_ns = perf_counter_ns() + 50_000_000
    with ThreadPoolExecutor(len(models), thread_name_prefix="edgevision-camera") as pool:
        running = [
            pool.submit(
                paced,
                model,
                supply,
                fps=fps,
                duration_s=duration_s,
                slots=slots,
                progress=progress if index == 0 else silent,
                start_ns=start_ns,
                stop=stop,
            )
            for index, (model, supply) in enumerate(zip(models, frames, strict=True))
        ]
        try:
            return [camera.result() for camera in running]
        except KeyboardInterrupt:
            stop.set()
            return [camera.result() for camera in running]
        finally:
            stop.set()  # whatever one of them raised, the others end as well


def _cut(trace: Trace) -> Trace:
    """Return what was measured before it was stopped: up to the last answer."""
    (answers,) = np.nonzero(trace.answered)
    count = int(answers[-1]) + 1 if len(answers) else 0
    stages = {name: spans[:count] for name, spans in trace.stages_ms.items()}
    return replace(
        trace,
        due_ns=trace.due_ns[:count],
        done_ns=trace.done_ns[:count],
        stages_ms=stages,
        is_cut=True,
    )


class Notes:
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
        payload = (timings.wait_ms, timings.copy_in_ms, timings.compute_ms, timings.copy_out_ms)
        chunk["done"][place] = done_ns
        # What is left after the stages that were measured is the answer's making and handing over.
        left_ms = max(0.0, (done_ns - due_ns) / 1e6 - sum(payload))
        chunk["stages"][place] = (*payload, left_ms)

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
