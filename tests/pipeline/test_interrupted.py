"""Ctrl-C at every moment of a call: no slot, no ticket and no other frame is lost for it.

CPython runs a signal's handler when a function begins, after a call and when a loop goes round, so
the test raises KeyboardInterrupt at each of these moments inside the runtime, one after another.
EDGEVISION_TEST_INTERRUPTS=1000 real signals are as many as the project promises; CI sends fewer.
"""

from __future__ import annotations

import dis
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import edgevision.runtime
from edgevision.errors import CallbackError, FrameDroppedError, RunError
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, pipeline_of, program_on

RUNTIME = edgevision.runtime.__path__[0]
HANGS_AFTER_S = 20.0
INTERRUPTS = int(os.environ.get("EDGEVISION_TEST_INTERRUPTS", "100"))
MOMENTS = ("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
FEEDS = {"frame": frame(1)}
OTHERS: set[threading.Thread] = set()


class Interrupt:
    """Raises KeyboardInterrupt at the nth moment in the runtime, on this thread."""

    def __init__(self, after: int) -> None:
        self.left = after
        self._last: dict[FrameType, str] = {}

    def __enter__(self) -> Interrupt:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, code: FrameType, event: str, _: Any) -> Any:
        # What the collector throws away meanwhile is an earlier try's.
        if not _is_traced(code) or code.f_code.co_name == "__del__":
            return None
        code.f_trace_opcodes = True
        return self._step

    def _step(self, code: FrameType, event: str, _: Any) -> Any:
        if event == "opcode" and self.left >= 0:
            last, now = self._last.get(code, ""), code.f_code.co_code[code.f_lasti]
            self._last[code] = dis.opname[now]
            if last.startswith(MOMENTS):
                self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self._step


def _is_traced(code: FrameType | None) -> bool:
    """Whether it is the runtime, or what that calls of `threading`.

    But for a thread's start: in there Python's own thread is lost for a Ctrl-C, and not our slots.
    """
    while code is not None and code.f_code.co_filename == threading.__file__:
        if code.f_code.co_name == "start":
            return False
        code = code.f_back
    return code is not None and code.f_code.co_filename.startswith(RUNTIME)


def is_interrupted(call: Callable[[], object], after: int) -> bool:
    """Interrupt a call at a moment; returns whether it came to that."""
    try:
        with Interrupt(after):
            call()
    except KeyboardInterrupt:
        return True
    return False


def in_time(call: Callable[[], object]) -> None:
    """Call on another thread, and fail if that hangs."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS_AFTER_S)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


@pytest.fixture(autouse=True)
def others() -> None:
    """Note the threads of other tests' pipelines, such as those of planted bugs."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def nothing_is_left(device: Device) -> None:
    ours = set(threading.enumerate()) - OTHERS
    assert "edgevision pipeline" not in {thread.name for thread in ours}
    if isinstance(device, SimulatedDevice):
        assert device.live == {"buffer": 0, "event": 0, "graph": 0, "stream": 0}


# Sessions


def lends(session: Session) -> None:
    with session.input() as buffer:
        buffer["frame"][:] = 5
        buffer.run()


def views(session: Session) -> None:
    with session.run_view(FEEDS) as view:
        view["echo"].copy()


SESSION_CALLS: dict[str, Callable[[Session], object]] = {
    "run": lambda session: session.run(FEEDS),
    "run_timed": lambda session: session.run_timed(FEEDS),
    "run_view": views,
    "input": lends,
    "warm_up": lambda session: session.warm_up(),
}


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", SESSION_CALLS)
def test_a_session_runs_on_whenever_a_call_was_interrupted(
    make: type[Device], slots: int, name: str
) -> None:
    after, device, call = 0, make(), SESSION_CALLS[name]
    options = RunOptions(slots=slots, graph=name != "warm_up")
    with Session(program_on(device), {}, options) as session:
        while is_interrupted(lambda: call(session), after):
            is_interrupted(lambda: call(session), after)  # twice in a row
            answer: list[np.ndarray] = []
            in_time(lambda: answer.append(session.run({"frame": frame(after % 250)})["echo"]))  # noqa: B023
            np.testing.assert_array_equal(answer[0], frame(after % 250))
            after += 1
    assert after > 10, "it was interrupted at many moments"
    nothing_is_left(device)


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_session_closes_whenever_that_was_interrupted(make: type[Device]) -> None:
    after, device, is_left = 0, make(), True
    while is_left:
        session = Session(program_on(device), {}, RunOptions(slots=2))
        session.run(FEEDS)
        is_left = is_interrupted(session.close, after)
        in_time(session.close)
        after += 1
    assert after > 10
    nothing_is_left(device)


def test_another_ctrl_c_before_a_slot_is_given_back_costs_nothing() -> None:
    """The cleaning up is interrupted before it begins, by each thread's last breath."""

    def pressed(hold: object) -> None:
        raise KeyboardInterrupt

    with Session(program_on(HostDevice()), {}, RunOptions()) as session:
        for number in range(3):
            give, session._give = session._give, pressed  # type: ignore[assignment]
            with pytest.raises(KeyboardInterrupt):
                session.run(FEEDS)
            session._give = give
            if number % 2:
                session.run(FEEDS)  # the thread itself is next, or another
            else:
                in_time(lambda: session.run(FEEDS))
        session._give = pressed  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            session.run(FEEDS)
        in_time(session.close)


# Pipelines


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
@pytest.mark.parametrize(("policy", "slots"), [("block", 1), ("block", 2), ("latest", 2)])
def test_no_frame_is_lost_whenever_submit_was_interrupted(
    make: type[Device], policy: str, slots: int
) -> None:
    after, device = 0, make()
    counted: list[int] = []
    while True:
        pipeline = pipeline_of(
            program_on(device),
            policy=policy,
            slots=slots,
            on_result=lambda t: counted.append(t.sequence),
        )
        first = pipeline.submit(frame(1))
        is_left = is_interrupted(lambda: pipeline.submit(frame(2)), after)  # noqa: B023
        if is_left:
            is_interrupted(lambda: pipeline.submit(frame(3)), after)  # noqa: B023
        last = pipeline.submit(frame(4))
        np.testing.assert_array_equal(last.result(timeout_s=HANGS_AFTER_S), frame(4))
        try:
            answer = first.result(timeout_s=HANGS_AFTER_S)
        except FrameDroppedError:
            assert policy == "latest"
        else:
            np.testing.assert_array_equal(answer, frame(1))
        in_time(pipeline.close)
        counters = pipeline.counters()
        assert counters.submitted == counters.delivered + counters.dropped, f"moment {after}"
        assert (counters.waiting, counters.running, counters.lost) == (0, 0, 0)
        assert counted == sorted(set(counted))
        assert len(counted) == counters.delivered
        counted.clear()
        if not is_left:
            break
        after += 1
    assert after > 20, "it was interrupted at many moments"
    nothing_is_left(device)


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_lent_buffer_comes_back_whenever_its_submit_was_interrupted(make: type[Device]) -> None:
    def lent() -> None:
        with pipeline.input() as buffer:
            buffer["frame"][:] = frame(2)
            buffer.submit()

    after, device = 0, make()
    with pipeline_of(program_on(device), policy="block", slots=1) as pipeline:
        while is_interrupted(lent, after):
            ticket = pipeline.submit(frame(3))
            np.testing.assert_array_equal(ticket.result(timeout_s=HANGS_AFTER_S), frame(3))
            after += 1
    counters = pipeline.counters()
    assert after > 20
    assert counters.submitted == counters.delivered
    nothing_is_left(device)


def test_dropped_frames_are_told_whenever_the_dropping_was_interrupted() -> None:
    after, is_left = 0, True
    while is_left:
        device = SimulatedDevice()
        with pipeline_of(program_on(device), policy="latest", slots=2) as pipeline:
            device.stall()
            called: list[int] = []
            tickets = [pipeline.submit(frame(number)) for number in range(2)]
            for number in range(3):
                tickets[1].add_done_callback(lambda _, n=number, c=called: c.append(n))  # type: ignore[misc]
            is_left = is_interrupted(lambda p=pipeline: p.submit(frame(2)), after)  # type: ignore[misc]
            tickets.append(pipeline.submit(frame(3)))
            device.resume()
            np.testing.assert_array_equal(tickets[-1].result(timeout_s=20), frame(3))
        with pytest.raises(FrameDroppedError):
            tickets[1].result(timeout_s=0)
        assert called == [0, 1, 2], f"moment {after}"
        after += 1
    assert after > 20


def test_an_interrupt_hides_one_callback_s_error_at_most() -> None:
    after, is_left = 0, True
    while is_left:
        device = SimulatedDevice()
        pipeline = pipeline_of(program_on(device), policy="latest", slots=2)
        device.stall()
        tickets = [pipeline.submit(frame(number)) for number in range(2)]
        for number in range(3):
            tickets[1].add_done_callback(lambda _, n=number: {}[n])  # type: ignore[misc]
        told: list[object] = []
        try:
            is_left = is_interrupted(lambda p=pipeline: p.submit(frame(2)), after)  # type: ignore[misc]
        except CallbackError as error:
            told.append(error.__cause__)
            is_left = False
        device.resume()
        while True:
            try:
                pipeline.close()
                break
            except CallbackError as error:
                told.append(error.__cause__)
        assert len(set(told)) >= (2 if is_left else 3), f"moment {after}"
        after += 1
    assert after > 20


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
@pytest.mark.parametrize("timeout_s", [None, 20.0])
def test_a_ticket_is_told_to_all_who_wait_whenever_one_was_interrupted(
    make: type[Device], timeout_s: float | None
) -> None:
    after, is_left = 0, True
    with pipeline_of(program_on(make()), policy="block") as pipeline:
        while is_left:
            ticket = pipeline.submit(frame(1))
            is_left = is_interrupted(lambda: ticket.result(timeout_s), after)  # noqa: B023
            in_time(ticket.result)
            np.testing.assert_array_equal(ticket.result(), frame(1))
            after += 1
    assert after >= 2  # more where it has to wait


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_pipeline_reopens_whenever_that_was_interrupted(make: type[Device]) -> None:
    after, device, is_left = 0, make(), True
    program = program_on(device, no_graph_reason="the script says so")
    while is_left:
        pipeline = pipeline_of(program, policy="block", slots=2)
        program.fail_at(1)
        with pytest.raises(RunError):
            pipeline.submit(frame(1)).result(timeout_s=20)
        is_left = is_interrupted(pipeline.reopen, after)
        try:
            in_time(pipeline.reopen)
        except RunError as error:
            assert "this one has not" in str(error)  # noqa: PT017
        ticket = pipeline.submit(frame(2))
        np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(2))
        in_time(pipeline.close)
        after += 1
    assert after > 10
    nothing_is_left(device)


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
@pytest.mark.parametrize("drain", [False, True])
def test_a_pipeline_closes_whenever_that_was_interrupted(make: type[Device], drain: bool) -> None:
    after, device, is_left = 0, make(), True
    while is_left:
        pipeline = pipeline_of(program_on(device), policy="block", slots=3)
        tickets = [pipeline.submit(frame(number)) for number in range(3)]
        is_left = is_interrupted(lambda: pipeline.close(drain=drain), after)  # noqa: B023
        in_time(pipeline.close)
        assert all(ticket.is_done for ticket in tickets)
        after += 1
    assert after > 10
    nothing_is_left(device)


# Real signals


@pytest.mark.parametrize("kind", ["host", "simulated"])
def test_many_real_interrupts_cost_nothing(kind: str) -> None:
    command = [sys.executable, "-m", "tests.pipeline.pressed", kind, str(INTERRUPTS)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
@pytest.mark.parametrize("policy", ["block", "latest"])
def test_a_signal_s_handler_may_close_in_the_middle_of_anything(
    make: type[Device], policy: str
) -> None:
    """The handler runs between two steps of a call, with whatever that call has locked."""

    class Handler(Interrupt):
        def _step(self, code: FrameType, event: str, argument: Any) -> Any:
            try:
                return super()._step(code, event, argument)
            except KeyboardInterrupt:
                sys.settrace(None)
                model_closes()
                return None

    def model_closes() -> None:
        try:
            pipeline.close(drain=False)
        except RunError as error:
            assert "signal's handler" in str(error)  # noqa: PT017

    after, device, is_left = 0, make(), True
    while is_left:
        pipeline = pipeline_of(program_on(device), policy=policy, slots=2)
        pipeline.submit(frame(1))
        handler = Handler(after)
        try:
            with handler:
                pipeline.submit(frame(2))
        except RunError:
            assert not pipeline.is_open
        is_left = handler.left < 0
        in_time(pipeline.close)
        after += 1
    assert after > 20
    nothing_is_left(device)
