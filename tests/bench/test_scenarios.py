"""Scenarios on a real model: every frame is accounted for."""

from __future__ import annotations

import numpy as np
import pytest

import edgevision
from edgevision.bench import scenarios
from edgevision.bench.statistics import Trace
from edgevision.bundle.directory import Bundle
from edgevision.tasks.timings import Timings

FRAMES = [np.full((6, 10, 3), shade, np.uint8) for shade in range(3)]


def check(trace: Trace) -> None:
    """Check what holds for every run."""
    answered = trace.answered
    assert (np.diff(trace.due_ns) >= 0).all()
    assert (trace.done_ns[answered] > trace.due_ns[answered]).all()
    assert list(trace.stages_ms) == list(scenarios.STAGES)
    for spans in trace.stages_ms.values():
        assert np.isnan(spans[~answered]).all()
        assert (spans[answered] >= 0).all()


def test_one_call_after_the_other(bundle: Bundle) -> None:
    told: list[int] = []
    with edgevision.load(bundle) as model:
        runs, _ = scenarios.warm_up(model, FRAMES)
        trace = scenarios.single(
            model, FRAMES, duration_s=0.2, progress=lambda _, done, of: told.append(done)
        )
    assert runs >= 25
    check(trace)
    assert trace.answered.all()
    assert len(trace.due_ns) > 1
    # Calls follow each other, so none is due before the last one was done.
    assert (trace.due_ns[1:] >= trace.done_ns[:-1]).all()
    np.testing.assert_allclose(sum(trace.stages_ms.values()), trace.latencies_ms, rtol=0.2)
    assert told
    assert told == sorted(told)


@pytest.mark.parametrize(("fps", "seconds", "frames"), [(100, 0.3, 30), (1000, 0.5, 500)])
def test_a_camera_is_due_on_its_clock_alone(
    bundle: Bundle, fps: int, seconds: float, frames: int
) -> None:
    with edgevision.load(bundle) as model:
        trace = scenarios.paced(model, FRAMES, fps=fps, duration_s=seconds)
    check(trace)
    assert len(trace.due_ns) == frames
    np.testing.assert_allclose(np.diff(trace.due_ns), 1e9 / fps, atol=1)
    assert trace.answered[-1], "the newest frame is always answered"


def test_as_fast_as_it_goes_drops_nothing(bundle: Bundle) -> None:
    with edgevision.load(bundle) as model:
        trace = scenarios.throughput(model, FRAMES, duration_s=0.5)
    check(trace)
    assert trace.answered.all()


def test_notes_find_room_for_any_number_of_frames() -> None:
    notes = scenarios.Notes(room=4)
    for number in range(11):
        notes.due(number, 1 + number)
        if number % 3:
            notes.done(number, 1 + number, 1_000_001 + number, Timings(0.1, 0.2, 0.3))
    trace = notes.trace(11)
    check(trace)
    np.testing.assert_array_equal(trace.due_ns, 1 + np.arange(11))
    np.testing.assert_array_equal(trace.answered, np.arange(11) % 3 > 0)
    np.testing.assert_allclose(trace.stages_ms["decode"][1], 0.4)
