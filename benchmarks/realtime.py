"""Frames at camera rate through a pipeline on the host, alone and beside programs that compute.

    python -m benchmarks.realtime [--seconds 300] [--json FILE] [--plot FILE]

A camera thread submits a frame at each tick of a fixed clock and stamps it with the tick, not with
the moment it came to submit: whatever delays the camera thread counts as latency, too. The net
takes a quarter of a 60 fps period; under overload two and a half periods, so most frames must be
dropped. Latencies hold for this machine at this hour; judged are the ages under overload, which are
told in periods and inferences, and that nothing grows.
"""

from __future__ import annotations

import argparse
import itertools
import json
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

from benchmarks.environment import environment
from benchmarks.graphs import busy_frame
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.options import RunOptions
from edgevision.runtime.pipeline import Pipeline
from edgevision.runtime.schedule import StreamOptions
from edgevision.runtime.ticket import Ticket
from edgevision.runtime.timing import Timings

HEIGHT, WIDTH = 90, 160
WARM_UP_FRAMES = 30
LEAST_FRAMES = {50.0: 44, 99.0: 662, 99.9: 6636}
"""Frames below which a percentile is noise: binomial, one beyond it allowed, 99 % confidence."""


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
        frames: that were due.
        delivered: answers.
        dropped: frames that a newer one replaced.
        inference_ms: median time of the net.
        percentiles_ms: by name; None where there were too few frames to tell.
        max_ms: the slowest.
        jitter_ms: 99th percentile less the median.
        max_gap_ms: the longest time between two answers.
        deadline_misses: answers later than two periods after their tick, and frames without one.
        longest_miss: such frames in a row.
        over_age: answers older than two periods and their own inference.
        max_age_over: the worst of them, in ms beyond; negative if none.
        memory_mb_per_minute: slope of the process's memory over the last three quarters.
    """

    case: Case
    frames: int
    delivered: int
    dropped: int
    inference_ms: float
    percentiles_ms: Mapping[str, float | None]
    max_ms: float
    jitter_ms: float
    max_gap_ms: float
    deadline_misses: int
    longest_miss: int
    over_age: int
    max_age_over: float
    memory_mb_per_minute: float


class Timed:
    """Frames in, times out."""

    def feeds(self, frame: np.ndarray) -> dict[str, object]:
        """Return the frame as the net's input."""
        return {"x": frame}

    def decode(self, outputs: Mapping[str, Any], timings: Timings) -> Timings:
        """Return the times."""
        return timings


def program_of(target_ms: float) -> OrtProgram:
    """Return a net that takes about `target_ms` on one thread."""
    per_layer_ms = (timed_ms(41) - timed_ms(1)) / 40
    return OrtProgram(
        busy_frame(HEIGHT, WIDTH, max(1, round(target_ms / per_layer_ms))), cpu_threads=1
    )


def timed_ms(layers: int) -> float:
    program = OrtProgram(busy_frame(HEIGHT, WIDTH, layers), cpu_threads=1)
    feeds = {"x": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)}
    times = []
    for _ in range(15):
        start_ns = perf_counter_ns()
        program.session.run(None, feeds)
        times.append((perf_counter_ns() - start_ns) / 1e6)
    return float(np.median(times))


def run(case: Case, seconds: float) -> tuple[Report, np.ndarray]:
    """Run one case; returns its report, and each answer's tick in s and latency in ms."""
    period_ns = round(1e9 / case.fps)
    program = program_of(case.load * period_ns / 1e6)
    frames = WARM_UP_FRAMES + round(seconds * case.fps)
    camera = [np.full((1, HEIGHT, WIDTH, 3), shade, np.uint8) for shade in range(8)]
    # Everything that is noted has its place before the clock starts, so that what grows is not us.
    done_ns, compute_ms = np.zeros(frames, np.int64), np.zeros(frames)
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
    ticks_ns = start_ns + np.arange(frames) * period_ns
    counted = np.arange(frames) >= WARM_UP_FRAMES
    return report(
        case,
        ticks_ns[counted],
        done_ns[counted],
        compute_ms[counted],
        memory=memory[: (frames - 1) // case.fps + 1],
    )


def report(
    case: Case,
    ticks_ns: np.ndarray,
    done_ns: np.ndarray,
    compute_ms: np.ndarray,
    *,
    memory: np.ndarray,
) -> tuple[Report, np.ndarray]:
    """Sum up what became of each frame; `done_ns` is 0 where there was no answer."""
    period_ms = 1e3 / case.fps
    answered = done_ns > 0
    latency_ms = (done_ns - ticks_ns)[answered] / 1e6
    missed = ~answered
    missed[answered] = latency_ms > 2 * period_ms
    beyond_ms = latency_ms - (2 * period_ms + compute_ms[answered])
    percentiles = {
        f"p{point:g}": round(float(np.percentile(latency_ms, point)), 3)
        if len(latency_ms) >= least
        else None
        for point, least in LEAST_FRAMES.items()
    }
    minutes, megabytes = memory[len(memory) // 4 :].T
    slope = float(np.polyfit(minutes, megabytes, 1)[0]) if len(minutes) > 2 else 0.0
    found = Report(
        case=case,
        frames=len(ticks_ns),
        delivered=int(answered.sum()),
        dropped=int((~answered).sum()),
        inference_ms=round(float(np.median(compute_ms[answered])), 3),
        percentiles_ms=percentiles,
        max_ms=round(float(latency_ms.max()), 3),
        jitter_ms=round(float(np.percentile(latency_ms, 99) - np.median(latency_ms)), 3),
        max_gap_ms=round(float(np.diff(done_ns[answered]).max()) / 1e6, 3),
        deadline_misses=int(missed.sum()),
        longest_miss=max(
            (len(list(g)) for late, g in itertools.groupby(missed) if late), default=0
        ),
        over_age=int((beyond_ms > 0).sum()),
        max_age_over=round(float(beyond_ms.max()), 3),
        memory_mb_per_minute=round(slope, 3),
    )
    seconds = (ticks_ns[answered] - ticks_ns[0]) / 1e9
    return found, np.stack([seconds, latency_ms], axis=1)


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


def table(reports: list[Report]) -> str:
    """Return the reports as a Markdown table."""
    names = list(reports[0].percentiles_ms)
    lines = [
        f"| case | inference ms | {' | '.join(f'{name} ms' for name in names)} | max ms "
        "| jitter ms | max gap ms | frames | dropped | deadline missed (longest run) "
        "| over-age (worst ms) | MB/min |",
        "|---" * (10 + len(names)) + "|",
    ]
    for found in reports:
        points = [
            "n too small" if value is None else f"{value:.1f}"
            for value in found.percentiles_ms.values()
        ]
        lines.append(
            f"| {found.case} | {found.inference_ms:.1f} | {' | '.join(points)} "
            f"| {found.max_ms:.1f} | {found.jitter_ms:.1f} | {found.max_gap_ms:.1f} "
            f"| {found.frames} | {found.dropped} "
            f"| {found.deadline_misses} ({found.longest_miss}) "
            f"| {found.over_age} ({found.max_age_over:+.1f}) | {found.memory_mb_per_minute:+.2f} |"
        )
    return "\n".join(lines)


def plot(path: Path, traces: list[tuple[Case, np.ndarray]]) -> None:
    """Draw each case's latencies over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(traces), 1, figsize=(9, 1.6 * len(traces)), sharex=True, layout="constrained"
    )
    for axis, (case, trace) in zip(np.atleast_1d(axes), traces, strict=True):
        axis.plot(trace[:, 0], trace[:, 1], ".", markersize=1.5, color="#1f77b4", rasterized=True)
        axis.axhline(2000 / case.fps, color="#d62728", linewidth=0.8)
        axis.set(yscale="log", ylabel="ms")
        axis.set_title(f"{case}; line: two periods", fontsize=9, loc="left")
    np.atleast_1d(axes)[-1].set_xlabel("s")
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300, help="of each case (default 300)")
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    parser.add_argument("--plot", type=Path, help="where to draw the latencies")
    options = parser.parse_args()
    cases = [Case(fps, fps / 240, hogs) for fps in (30, 60) for hogs in (0, 1)]
    # An overload shows within a minute; what is long about it would only be the wait.
    overloads = [Case(fps, 2.5, hogs) for fps in (30, 60) for hogs in (0, 1)]
    runs = [(case, run(case, options.seconds)) for case in cases]
    runs += [(case, run(case, min(60, options.seconds))) for case in overloads]
    reports = [found for _, (found, _) in runs]
    print(table(reports))
    if options.json:
        told = {"environment": environment(), "reports": [asdict(found) for found in reports]}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.plot:
        plot(options.plot, [(case, trace) for case, (_, trace) in runs])
    grows = [found for found in reports if found.memory_mb_per_minute > 1 and options.seconds >= 60]
    stale = [found for found in reports if found.case in overloads and found.over_age]
    for found in stale:
        print(f"{found.case}: {found.over_age} answers older than two periods and an inference")
    for found in grows:
        print(f"{found.case}: memory grows by {found.memory_mb_per_minute} MB a minute")
    return 1 if grows or stale else 0


if __name__ == "__main__":
    sys.exit(main())
