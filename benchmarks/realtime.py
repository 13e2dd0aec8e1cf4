"""Frames at camera rate through a pipeline on the host, alone and beside programs that compute.

    python -m benchmarks.realtime [--seconds 300] [--json-file FILE] [--plot FILE]

A camera thread submits a frame at each tick of a fixed clock and stamps it with the tick, not with
the moment it came to submit: whatever delays the camera thread counts as latency, too. The net
takes a quarter of a 60 fps period; under overload two and a half periods, so most frames must be
dropped. Latencies hold for this machine at this hour; judged are the ages under overload, which are
told in periods and inferences, and that nothing grows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.graphs import busy_frame
from benchmarks.script import arguments, record
from benchmarks.tables import realtime
from edgevision.bench.statistics import Summary, Trace, summarise
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.options import RunOptions
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.tasks.timings import Timings

HEIGHT, WIDTH = 90, 160
WARM_UP_FRAMES = 30
_ONE_THREAD = RunOptions(cpu_threads=1)


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        fps: the camera's rate.
        load: the net's time as a part of the period.
        hogs: processes that compute beside it.
    """

    fps: int
    load: float
    hogs: int

    def __str__(self) -> str:
        return f"{self.fps} fps, load {self.load:.2g}, {self.hogs} hogs"


@dataclass(frozen=True)
class Report:
    """What a run showed; times from a frame's tick to its answer.

    Attributes:
        case: what was run.
        summary: latencies, drops, deadlines of two periods missed.
        over_age: answers older than two periods and their own inference.
        max_age_over_ms: the worst of them, beyond that; negative if there is none.
        memory_mb_per_minute: slope of the process's memory over the last three quarters.
    """

    case: Case
    summary: Summary
    over_age: int
    max_age_over_ms: float
    memory_mb_per_minute: float


class Timed:
    """Frames in, times out."""

    def feeds(self, frame: np.ndarray) -> dict[str, object]:
        """Return the frame as the net's input."""
        return {"x": frame}

    def decode(self, outputs: Mapping[str, Any], timings: Timings) -> Timings:
        """Return the times."""
        return timings


def make_program(target_ms: float) -> OrtProgram:
    """Return a net that takes about `target_ms` on one thread."""
    per_layer_ms = (timed_ms(41) - timed_ms(1)) / 40
    return OrtProgram(
        busy_frame(HEIGHT, WIDTH, max(1, round(target_ms / per_layer_ms))), options=_ONE_THREAD
    )


def timed_ms(layers: int) -> float:
    program = OrtProgram(busy_frame(HEIGHT, WIDTH, layers), options=_ONE_THREAD)
    feeds = {"x": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)}
    times = []
    for _ in range(15):
        start_ns = perf_counter_ns()
        program.session.run(None, feeds)
        times.append((perf_counter_ns() - start_ns) / 1e6)
    return float(np.median(times))


def run(case: Case, seconds: float) -> tuple[Report, Trace]:
    """Run one case."""
    period_ns = round(1e9 / case.fps)
    program = make_program(case.load * period_ns / 1e6)
    frames = WARM_UP_FRAMES + round(seconds * case.fps)
    camera = [np.full((1, HEIGHT, WIDTH, 3), shade, np.uint8) for shade in range(8)]
    # Everything that is noted has its place before the clock starts, so that what grows is not us.
    done_ns, compute_ms = np.zeros(frames, np.int64), np.full(frames, np.nan)
    memory = np.zeros((frames // case.fps + 1, 2))

    def note(ticket: Ticket[Timings]) -> None:
        done_ns[ticket.sequence] = ticket.done_ns
        compute_ms[ticket.sequence] = ticket.result().compute_ms

    options = StreamOptions(policy="latest", deadline_ms=2 * period_ns / 1e6)
    with (
        hogs(case.hogs),
        Pipeline(
            program, {}, Timed(), options, run_options=RunOptions(), on_result=note
        ) as pipeline,
    ):
        start_ns = perf_counter_ns() + 100_000_000
        for number in range(frames):
            tick_ns = start_ns + number * period_ns
            if (wait_ns := tick_ns - perf_counter_ns()) > 0:
                time.sleep(wait_ns / 1e9)
            pipeline.submit(camera[number % 8], stamp_ns=tick_ns)
            if number % case.fps == 0:
                memory[number // case.fps] = number / case.fps / 60, resident_mb()
                progress(case, number, frames)
    program.close()
    counted = slice(WARM_UP_FRAMES, None)
    trace = Trace(
        (start_ns + np.arange(frames) * period_ns)[counted],
        done_ns[counted],
        {"compute": compute_ms[counted]},
    )
    return report(case, trace, memory[: (frames - 1) // case.fps + 1]), trace


def report(case: Case, trace: Trace, memory: np.ndarray) -> Report:
    """Sum up what became of each frame."""
    due_by_ms = 2e3 / case.fps
    compute_ms = trace.stages_ms["compute"][trace.answered]
    beyond_ms = trace.latencies_ms - (due_by_ms + compute_ms)
    minutes, megabytes = memory[len(memory) // 4 :].T
    slope = float(np.polyfit(minutes, megabytes, 1)[0]) if len(minutes) > 2 else 0.0
    return Report(
        case=case,
        summary=summarise(trace, deadline_ms=due_by_ms),
        over_age=int((beyond_ms > 0).sum()),
        max_age_over_ms=float(beyond_ms.max()),
        memory_mb_per_minute=slope,
    )


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep `count` processes computing."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def compute() -> None:
    while True:
        sum(range(100_000))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def progress(case: Case, number: int, frames: int) -> None:
    if sys.stderr.isatty() or number % (30 * case.fps) == 0:
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{case}: {number} of {frames} frames", end=end, file=sys.stderr, flush=True)


def plot(path: Path, runs: list[tuple[Case, Trace]]) -> None:
    """Draw each case's latencies over time."""
    figure = Figure(figsize=(9, 1.6 * len(runs)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(runs), 1, sharex=True))
    for axis, (case, trace) in zip(axes, runs, strict=True):
        seconds = (trace.due_ns[trace.answered] - trace.due_ns[0]) / 1e9
        axis.plot(seconds, trace.latencies_ms, ".", markersize=1.5, color="#2f6fb2")
        axis.axhline(2000 / case.fps, color="#c8553d", linewidth=0.8)
        axis.set(yscale="log", ylabel="ms")
        axis.set_title(f"{case}; line: two periods", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("s")
    figure.savefig(path, dpi=110)


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of each case (default 300)")
    parser.add_argument("--plot", type=Path, help="where to draw the latencies")
    return parser


def main() -> int:
    options = parser().parse_args()
    cases = [Case(fps, fps / 240, hogs) for fps in (30, 60) for hogs in (0, 1)]
    # An overload shows within a minute; what is long about it would only be the wait.
    overloads = [Case(fps, 2.5, hogs) for fps in (30, 60) for hogs in (0, 1)]
    runs = [(case, run(case, options.seconds)) for case in cases]
    runs += [(case, run(case, min(60, options.seconds))) for case in overloads]
    reports = [found for _, (found, _) in runs]
    told = [asdict(found) for found in reports]
    print("\n".join(realtime({"reports": told})))
    if options.json_file:
        record(options.json_file, reports=told)
    if options.plot:
        plot(options.plot, [(case, trace) for case, (_, trace) in runs])
    grows = [found for found in reports if found.memory_mb_per_minute > 1 and options.seconds >= 60]
    # Beside a hog the camera's own thread may be kept from its core for longer than a period.
    alone = [found for found in reports if found.case in overloads and not found.case.hogs]
    stale = [found for found in alone if found.over_age]
    for found in stale:
        print(f"{found.case}: {found.over_age} answers older than two periods and an inference")
    for found in grows:
        print(f"{found.case}: memory grows by {found.memory_mb_per_minute:.1f} MB a minute")
    return 1 if grows or stale else 0


if __name__ == "__main__":
    sys.exit(main())
