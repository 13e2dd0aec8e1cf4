"""A model and its parts under several threads: turns, closing in any order, forgetting, forking."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevision.errors import CallbackError, ClosedError, RunError
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.tasks.tensors import TensorsDecoder
from edgevision.testing import ScriptedProgram, SimulatedDevice
from tests.parts.echo import ECHO, FRAME, frame, pipeline_of, program_on

WAIT_S = 20.0
FEEDS = {"frame": frame(1)}


def is_true(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


class Counted(ScriptedProgram):
    """Refuses to be closed under an execution."""

    executions = 0
    closed_early = False

    def execution(self, scratch: Any) -> Any:
        made = super().execution(scratch)
        close = made.close
        self.executions += 1

        def closed() -> None:
            self.executions -= 1
            close()

        made.close = closed  # type: ignore[method-assign]
        return made

    def close(self) -> None:
        self.closed_early |= self.executions > 0
        super().close()


def opened() -> tuple[SimulatedDevice, Counted, Model]:
    device = SimulatedDevice()
    program = Counted(device, [FRAME], [ECHO])
    session = Session(program, {}, RunOptions())
    return device, program, Model(None, session, None, TensorsDecoder(program.inputs))  # type: ignore[arg-type]


def is_freed(device: SimulatedDevice, program: Counted) -> bool:
    return not program.is_open and not any(device.live.values())


# Turns


@pytest.mark.parametrize("waiters", [1, 3])
def test_slots_go_to_who_came_first(waiters: int) -> None:
    """Not to who happens to be awake, as is the thread that gives one back and wants it again."""
    served: list[int] = []
    with Session(program_on(HostDevice()), {}, RunOptions()) as session:

        def run(number: int) -> None:
            session.run(FEEDS)
            served.append(number)

        with session.input():
            threads = []
            for number in range(waiters):
                threads.append(threading.Thread(target=run, args=(number,)))
                threads[-1].start()
                is_true(lambda n=number: len(session._slots._waiting) == n + 1)  # type: ignore[misc]
        run(waiters)
        for thread in threads:
            thread.join(WAIT_S)
        assert served[-1] == waiters
        assert sorted(served) == list(range(waiters + 1))


def test_two_who_warm_up_do_not_wait_for_each_other() -> None:
    with Session(program_on(SimulatedDevice()), {}, RunOptions(slots=2)) as session:
        for _ in range(20):
            threads = [threading.Thread(target=session.warm_up, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
                assert not thread.is_alive()


def test_a_thread_that_waits_for_the_slot_it_holds_is_told() -> None:
    with Session(program_on(HostDevice()), {}, RunOptions()) as session:
        with session.input():
            for call in (lambda: session.run(FEEDS), session.warm_up, session.close):
                with pytest.raises(RunError, match=r"Leave the block first|holds every one itself"):
                    call()
        np.testing.assert_array_equal(session.run(FEEDS)["echo"], frame(1))


def test_a_second_warm_up_leaves_no_graph_behind() -> None:
    device = SimulatedDevice()
    with Session(program_on(device), {}, RunOptions()) as session:
        session.warm_up()
        session.warm_up()
    assert not any(device.live.values())


# Closing


def test_a_model_may_be_closed_in_its_callback() -> None:
    device, program, model = opened()
    pipeline = model.stream(policy="block", on_result=lambda t: t.sequence or model.close())
    device.stall()
    for number in range(3):
        pipeline.submit({"frame": frame(number)})
    device.resume()
    is_true(lambda: is_freed(device, program))
    assert not program.closed_early
    model.close()


def test_a_model_closes_while_its_pipeline_is_being_drained() -> None:
    device, program, model = opened()
    pipeline = model.stream(policy="block")
    device.stall()
    for number in range(3):
        pipeline.submit({"frame": frame(number)})
    closers = [threading.Thread(target=close) for close in (pipeline.close, model.close)]
    for thread in closers:
        thread.start()
    is_true(lambda: not pipeline.is_open)
    assert program.is_open
    device.resume()
    for thread in closers:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert is_freed(device, program)
    assert not program.closed_early


def test_a_pipeline_keeps_its_model() -> None:
    device, program, model = opened()
    pipeline = model.stream(policy="block")
    del model
    gc.collect()
    assert program.is_open
    pipeline.submit({"frame": frame(1)}).result(WAIT_S)
    pipeline.close()
    with pytest.warns(ResourceWarning, match="the session, opened at"):
        del pipeline
        gc.collect()
    assert is_freed(device, program)
    assert not program.closed_early


def test_the_session_may_be_closed_before_its_pipelines() -> None:
    device, program, model = opened()
    pipeline = model.stream(policy="block")
    model.session.close()
    assert program.is_open
    pipeline.submit({"frame": frame(1)}).result(WAIT_S)
    with pytest.raises(ClosedError):
        model.stream()
    pipeline.close()
    assert is_freed(device, program)


def test_no_pipeline_is_opened_on_a_model_that_is_being_closed() -> None:
    for _ in range(20):
        device, program, model = opened()
        made: list[Any] = []

        def stream(model: Model = model, made: list[Any] = made) -> None:
            try:
                while True:
                    made.append(model.stream(policy="block"))
            except ClosedError:
                pass

        threads = [threading.Thread(target=stream) for _ in range(2)]
        for thread in threads:
            thread.start()
        is_true(lambda made=made: len(made) > 2)  # type: ignore[misc]
        model.close()
        for thread in threads:
            thread.join(WAIT_S)
        assert not any(pipeline.is_open for pipeline in made)
        assert is_freed(device, program)


def test_a_callback_s_error_does_not_keep_a_model_open() -> None:
    device, program, model = opened()
    first = model.stream(policy="block", on_result=lambda ticket: 1 / 0)  # type: ignore[arg-type, return-value]
    second = model.stream(policy="block")
    first.submit({"frame": frame(1)}).result(WAIT_S)
    with pytest.raises(CallbackError, match="ZeroDivisionError"):
        model.close()
    assert not second.is_open
    assert is_freed(device, program)


# Forgetting, forking


def test_what_is_forgotten_is_freed_where_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []  # the errors themselves keep what they tell of
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(str(each.exc_value)))
    device, program, model = opened()
    pipeline = model.stream(policy="block")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del model, pipeline
        gc.collect()
        is_true(lambda: is_freed(device, program))
    assert {each.split(",")[0] for each in told} == {"the pipeline", "the session"}


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_every_call_in_a_forked_child_is_a_closed_error() -> None:
    device = SimulatedDevice()
    session = Session(program_on(HostDevice()), {}, RunOptions())
    pipeline = pipeline_of(program_on(device))
    device.stall()
    ticket = pipeline.submit(frame(1))
    calls = {
        "run": lambda: session.run(FEEDS),
        "result": ticket.result,
        "result with a timeout": lambda: ticket.result(WAIT_S),
        "submit": lambda: pipeline.submit(frame(2)),
        "reopen": pipeline.reopen,
        "counters": pipeline.counters,
        "check_progress": pipeline.check_progress,
        "latest": pipeline.latest,
    }
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            for name, call in calls.items():
                try:
                    call()  # type: ignore[operator]
                except ClosedError:
                    os.write(writing, f"{name};".encode())
            pipeline.close()
            session.close()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "".join(f"{name};" for name in calls)
    os.waitpid(child, 0)
    device.resume()
    pipeline.close()
    session.close()
