"""Random schedules on the simulated device: no frame is lost, doubled, reordered or torn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
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
from edgevision.runtime.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.ticket import Ticket
from edgevision.testing import SimulatedDevice
from tests.pipeline.conftest import POISON, frame, pipeline_of, program_on

SCHEDULES = 5000
STEPS = ("submit", "submit", "submit", "lend", "abandon", "result", "poison", "raise", "reopen")


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
    )


class OwnError(Exception):
    pass


def taken(error: CallbackError) -> Ticket[Any]:
    """Return the ticket of the frame that was taken although a callback had raised."""
    assert isinstance(error.__cause__, OwnError)
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
    raises = False

    def on_result(ticket: Ticket[Any]) -> None:
        schedule.told.append(ticket.sequence)
        if raises:
            raise OwnError

    pipeline = pipeline_of(
        program,
        slots=schedule.slots,
        policy=schedule.policy,
        run_options=RunOptions(graph=schedule.graph),
        on_result=on_result,
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
                raises = not raises
            elif step == "reopen":
                pipeline.reopen()
        except (FrameDroppedError, FrameLostError, ValueError):
            pass
        except CallbackError as error:
            tickets.append((taken(error), -1 if step == "poison" else number))
        except CudaError:
            assert schedule.fail_operation
        except ClosedError:
            assert not pipeline.is_open  # reopening failed
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
    assert counters.submitted == len(tickets)
    if schedule.order != "host" and device._dead is None:
        assert not any(device.live.values()), f"left behind: {device.live}"
    return tickets, counters


def check(schedule: Schedule) -> None:
    tickets, counters = run(schedule)
    assert [ticket.sequence for ticket, _ in tickets] == list(range(len(tickets)))
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
    assert outcomes == {name: getattr(counters, name) for name in outcomes}
    assert schedule.told == sorted(set(schedule.told)), "told twice or out of order"
    assert len(schedule.told) == outcomes["delivered"]
    if schedule.policy == "block" and schedule.drain:
        assert outcomes["dropped"] == 0


@settings(
    max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(schedules())
def test_no_schedule_loses_doubles_reorders_or_tears_a_frame(schedule: Schedule) -> None:
    check(schedule)
