"""Random schedules on the simulated device: no frame is lost, doubled, reordered or torn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevision.errors import (
    CallbackError,
    ClosedError,
    CudaError,
    FrameDroppedError,
    FrameLostError,
    HazardError,
    RunError,
)
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.testing import SimulatedDevice
from tests.pipeline.conftest import POISON, frame, pipeline_of, program_on
from tests.pipeline.test_interrupted import is_interrupted

SCHEDULES = 5000
MOMENTS = 80  # of a `submit`, about
STEPS = (
    *("submit", "submit", "submit", "lend", "abandon", "result", "poison", "raise", "reopen"),
    *("old", "stamp", "interrupt", "interrupt", "close", "exit"),
)


@dataclass
class Schedule:
    slots: int
    policy: str
    order: object
    integrated: bool
    graph: bool
    refuse_run: int
    fail_operation: int
    on_device: bool
    steps: list[str]
    drain: bool
    drops_late: bool = False
    moment: int = 0
    interrupted: int = 0
    told: list[int] = field(default_factory=list)


@st.composite
def schedules(draw: Any) -> Schedule:
    policy = draw(st.sampled_from(["latest", "block", "drop_oldest"]))
    return Schedule(
        slots=draw(st.integers(1 if policy == "block" else 2, 4)),
        policy=policy,
        order=draw(st.one_of(st.sampled_from(["eager", "lazy", "host"]), st.integers(0, 1 << 16))),
        integrated=draw(st.booleans()),
        graph=draw(st.booleans()),
        refuse_run=draw(st.sampled_from([0, 0, 0, 1, 2, 5])),
        fail_operation=draw(st.sampled_from([0, 0, 0, 0, 3, 10, 20])),
        on_device=draw(st.booleans()),
        steps=draw(st.lists(st.sampled_from(STEPS), max_size=12)),
        drain=draw(st.booleans()),
        drops_late=draw(st.booleans()),
        moment=draw(st.integers(0, 80)),
    )


class OwnError(Exception):
    pass


class OwnExit(BaseException):
    pass


BAD_STAMPS: list[Any] = [1.5, "1", None.__class__, True, 10**19, -(10**15)]


def taken(error: CallbackError) -> Ticket[Any]:
    """Return the ticket of the frame that was taken although a callback had raised."""
    assert isinstance(error.__cause__, OwnError | OwnExit)
    assert error.ticket is not None
    return error.ticket


def run(schedule: Schedule) -> tuple[list[tuple[Ticket[Any], int]], Any]:
    """Drive a pipeline through the schedule; return its tickets with their frames' numbers."""
    device: Any = HostDevice()
    if schedule.order != "host":
        device = SimulatedDevice(
            order=schedule.order,  # type: ignore[arg-type]
            integrated=schedule.integrated,
        )
    program = program_on(device)
    raises: type[BaseException] | None = None
    closes = False

    def on_result(ticket: Ticket[Any]) -> None:
        schedule.told.append(ticket.sequence)
        if closes:
            pipeline.close(drain=schedule.drain)
        if raises is not None:
            raise raises

    pipeline = pipeline_of(
        program,
        slots=schedule.slots,
        policy=schedule.policy,
        run_options=RunOptions(graph=schedule.graph),
        on_result=on_result,
        deadline_ms=500.0,
        on_late="drop" if schedule.drops_late else "deliver",
    )
    if schedule.refuse_run:
        program.fail_at(schedule.refuse_run)
    if schedule.fail_operation and schedule.order != "host":
        device.fail_at(schedule.fail_operation, on_device=schedule.on_device)
    tickets: list[tuple[Ticket[Any], int]] = []
    number = 0
    for step in schedule.steps:
        try:
            if step in ("submit", "poison"):
                number += 1
                fed = np.full_like(frame(0), POISON) if step == "poison" else frame(number)
                ticket = pipeline.submit(fed)
                fed[:] = 0  # the caller may use its frame again
                tickets.append((ticket, -1 if step == "poison" else number))
            elif step == "lend":
                number += 1
                with pipeline.input() as buffer:
                    buffer["frame"][:] = frame(number)
                    tickets.append((buffer.submit(), number))
            elif step == "abandon":
                with pipeline.input() as buffer:
                    buffer["frame"][:] = 9
            elif step == "result" and tickets:
                tickets[-1][0].result(timeout_s=20)
            elif step == "raise":
                raises = None if raises else OwnError
            elif step == "exit":
                raises = None if raises else OwnExit
            elif step == "old":
                number += 1
                stamp_ns = time.perf_counter_ns() - 10**9
                tickets.append((pipeline.submit(frame(number), stamp_ns=stamp_ns), number))
            elif step == "stamp":
                wrong = BAD_STAMPS[number % len(BAD_STAMPS)]
                with pytest.raises((TypeError, ValueError)):
                    pipeline.submit(frame(0), stamp_ns=wrong)
            elif step == "interrupt":
                number += 1
                got: list[Ticket[Any]] = []

                def submit(got: list[Ticket[Any]] = got, number: int = number) -> None:
                    got.append(pipeline.submit(frame(number)))

                schedule.interrupted += is_interrupted(
                    submit, (schedule.moment + 13 * number) % MOMENTS
                )
                tickets += [(ticket, number) for ticket in got]
            elif step == "close":
                closes = True
            elif step == "reopen":
                pipeline.reopen()
        except (FrameDroppedError, FrameLostError, ValueError):
            pass
        except CallbackError as error:
            tickets.append((taken(error), -1 if step == "poison" else number))
        except CudaError:
            assert schedule.fail_operation
        except ClosedError:
            assert not pipeline.is_open  # reopening failed, or a callback closed it
        except HazardError:
            raise
        except RunError as error:
            # `reopen` runs each slot once, and tells what refused that.
            if step != "reopen" and "failed" not in str(error):
                raise
    while True:
        try:
            pipeline.close(drain=schedule.drain)
        except CallbackError:
            continue  # it tells of one at a time
        break
    program.close()
    counters = pipeline.counters()
    assert (counters.waiting, counters.running) == (0, 0)
    assert counters.submitted == counters.delivered + counters.dropped + counters.lost
    # Who was interrupted has no ticket; the frame may be in the pipeline all the same.
    assert 0 <= counters.submitted - len(tickets) <= schedule.interrupted
    if schedule.order != "host" and device._dead is None:
        assert not any(device.live.values()), f"left behind: {device.live}"
    return tickets, counters


def check(schedule: Schedule) -> None:
    tickets, counters = run(schedule)
    sequences = [ticket.sequence for ticket, _ in tickets]
    assert sequences == sorted(set(sequences))
    if not schedule.interrupted:
        assert sequences == list(range(len(tickets)))
    outcomes = {"delivered": 0, "dropped": 0, "lost": 0}
    for ticket, number in tickets:
        assert ticket.is_done, "a frame was lost without a word"
        try:
            answer = ticket.result(timeout_s=0)
        except FrameDroppedError:
            outcomes["dropped"] += 1
        except FrameLostError as error:
            if isinstance(error.__cause__, HazardError):
                raise error.__cause__ from error
            assert schedule.refuse_run or schedule.fail_operation, "nothing was to fail"
            outcomes["lost"] += 1
        except ValueError:
            assert number == -1
            outcomes["delivered"] += 1
        else:
            np.testing.assert_array_equal(answer, frame(number))
            outcomes["delivered"] += 1
    unknown = counters.submitted - len(tickets)
    counted = {name: getattr(counters, name) for name in outcomes}
    assert all(0 <= counted[name] - outcomes[name] <= unknown for name in outcomes)
    assert sum(counted.values()) == sum(outcomes.values()) + unknown
    assert schedule.told == sorted(set(schedule.told)), "told twice or out of order"
    # Those of on_late="drop" are told of frames that came late, too.
    assert len(schedule.told) >= counters.delivered
    assert len(schedule.told) <= counters.delivered + counters.late
    if schedule.policy == "block" and schedule.drain and not schedule.drops_late:
        assert outcomes["dropped"] == 0


@settings(
    max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(schedules())
def test_no_schedule_loses_doubles_reorders_or_tears_a_frame(schedule: Schedule) -> None:
    check(schedule)
