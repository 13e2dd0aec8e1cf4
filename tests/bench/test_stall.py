"""A pipeline that stands still now and then: every frame that was due meanwhile says so.

The program notes by itself what it ran and when. What the trace must say follows from these notes
alone, on a busy machine as on a quiet one; and no machine can hide what was injected.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import pytest

from edgevision.bench import scenarios
from edgevision.bench.statistics import summarise
from edgevision.bundle.directory import Bundle
from edgevision.runtime.backends.ort import OrtExecution, OrtProgram
from edgevision.runtime.device.device import Stream
from edgevision.runtime.device.memory import Buffer
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.select import select
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import bundle_decoder
from tests.parts.tiny_bundles import HEIGHT, WIDTH

FPS = 30
DEADLINE_MS = 30.0
# A machine that is busy takes this long to pass an answer on, and to wake a thread.
SLACK_MS = 25.0


@dataclass(frozen=True)
class Run:
    """A run as the program saw it."""

    frame: int
    end_ns: int
    stalled: bool


class StallingProgram(OrtProgram):
    """ONNX Runtime, that stands still for `stall_s` once every `every_s` while it is `armed`."""

    def __init__(self, graph: bytes, stall_s: float, every_s: float) -> None:
        super().__init__(graph)
        self.stall_s, self.every_s = stall_s, every_s
        self.runs: list[Run] = []
        self.next_ns: int | None = None

    def arm(self) -> None:
        """Forget what ran so far; the first stall comes half an interval from now."""
        self.runs.clear()
        self.next_ns = perf_counter_ns() + int(self.every_s * 5e8)

    def execution(self, scratch: Buffer | None) -> OrtExecution:
        return StallingExecution(self)


class StallingExecution(OrtExecution):
    def __init__(self, program: StallingProgram) -> None:
        super().__init__(program)
        self.program = program
        self.bound: dict[str, Buffer] = {}

    def bind(self, name: str, buffer: Buffer) -> None:
        super().bind(name, buffer)
        self.bound[name] = buffer

    def enqueue(self, stream: Stream) -> None:
        program = self.program
        stalled = program.next_ns is not None and perf_counter_ns() >= program.next_ns
        if stalled and program.next_ns is not None:
            program.next_ns += int(program.every_s * 1e9)
            time.sleep(program.stall_s)
        super().enqueue(stream)
        number = self.bound["frame"].host
        assert number is not None
        program.runs.append(Run(int(number[0]) * 256 + int(number[1]), perf_counter_ns(), stalled))


def numbered(count: int) -> list[np.ndarray]:
    """Return frames that say in their first two bytes which they are."""
    frames = []
    for number in range(count):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame.flat[:2] = divmod(number, 256)
        frames.append(frame)
    return frames


def expected(runs: Mapping[int, Run], due_ns: np.ndarray, *, slack_ms: float) -> list[bool]:
    """Return, by frame, whether it is missed if answers come `slack_ms` after their run."""
    return [
        number not in runs or (runs[number].end_ns - due) / 1e6 + slack_ms > DEADLINE_MS
        for number, due in enumerate(due_ns)
    ]


# 50 ms delay one frame beyond its deadline and the next by 17 ms. During 190 ms five frames are
# due: the newest waits 23 ms, the others it replaced.
@pytest.mark.parametrize(
    ("stall_ms", "every_s", "seconds", "missed", "dropped"),
    [(50, 5.0, 10.0, 1, 0), (190, 2.0, 6.0, 5, 4)],
)
def test_a_stall_is_told_by_every_frame_that_was_due_meanwhile(
    bundle: Bundle, stall_ms: int, every_s: float, seconds: float, missed: int, dropped: int
) -> None:
    (stage,) = bundle.manifest.stages
    program = StallingProgram(bundle.read(stage.graph), stall_ms / 1e3, every_s)
    session = Session(program, stage.profiles, RunOptions())
    task = bundle_decoder(bundle.manifest, bundle.read)
    frames = numbered(round(FPS * seconds))
    with Model(bundle.manifest, session, select(stage, device="cpu"), task) as model:
        scenarios.warm_up(model, frames[:3])
        program.arm()
        trace = scenarios.paced(model, frames, fps=FPS, duration_s=seconds)
    found = summarise(trace, deadline_ms=DEADLINE_MS)
    # The pipeline warms its slots before the first frame is due.
    runs = {run.frame: run for run in program.runs if run.end_ns > trace.due_ns[0]}
    stalls = sum(run.stalled for run in runs.values())
    assert stalls == round(seconds / every_s)

    # Nothing that was injected is hidden...
    assert found.missed is not None
    assert found.missed >= stalls * missed
    assert found.dropped >= stalls * dropped
    assert found.max_ms >= stall_ms
    # ...and nothing is told that was not there.
    assert found.frames == len(frames)
    assert found.dropped == len(frames) - len(runs)
    sure = sum(expected(runs, trace.due_ns, slack_ms=0))
    possible = sum(expected(runs, trace.due_ns, slack_ms=SLACK_MS))
    assert sure <= found.missed <= possible
    slowest_ms = max((run.end_ns - trace.due_ns[number]) / 1e6 for number, run in runs.items())
    assert slowest_ms <= found.max_ms <= slowest_ms + SLACK_MS
    print(f"{stall_ms} ms, {stalls} times: {found.missed} missed, {found.dropped} dropped, "
          f"most {found.max_ms:.1f} ms")  # fmt: skip
