"""Stamps, callbacks, stalls and second openings: what a pipeline does with what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from edgevision.errors import (
    CallbackError,
    ClosedError,
    CudaError,
    FrameDroppedError,
    FrameLostError,
    RunError,
    StalledError,
)
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.stream import workers
from edgevision.runtime.stream.ticket import Ticket
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, pipeline_of, program_on

WAIT_S = 20.0


class RosTime:
    sec, nanosec = 1, 2


def now() -> int:
    return time.perf_counter_ns()


def is_true(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def fail_first(pipeline: Any) -> None:
    """Let the frame that runs fail once it is waited for."""

    def wait(self: Any) -> None:
        del self.wait
        raise CudaError("launch failed", code=719)

    slot = pipeline._setup.schedule.running[0].slot
    slot.wait = types.MethodType(wait, slot)


# Stamps


@pytest.mark.parametrize(
    ("stamp", "error", "message"),
    [
        (1.5, TypeError, "got float 1.5, expected an integer number of nanoseconds"),
        (float("nan"), TypeError, "got float nan"),
        ("1000", TypeError, "got str '1000'"),
        (True, TypeError, "got bool True"),
        (RosTime(), TypeError, r"stamp.sec \* 10\*\*9 \+ stamp.nanosec"),
        (1_700_000_000_000_000_000, ValueError, r'ahead by perf_counter.*clock="realtime"'),
        (-(10**14), ValueError, "old by perf_counter"),
    ],
)
def test_a_stamp_that_is_none_is_refused_and_costs_nothing(
    stamp: object, error: type[Exception], message: str
) -> None:
    with pipeline_of(program_on(HostDevice()), policy="block", slots=1) as pipeline:
        for _ in range(3):
            with pytest.raises(error, match=message):
                pipeline.submit(frame(1), stamp_ns=stamp)  # type: ignore[arg-type]
            with pipeline.input() as buffer, pytest.raises(error, match=message):
                buffer.submit(stamp_ns=stamp)  # type: ignore[arg-type]
        np.testing.assert_array_equal(pipeline.submit(frame(2)).result(WAIT_S), frame(2))
        assert pipeline.counters().submitted == 1


@pytest.mark.parametrize(
    ("clock", "read"),
    [
        ("perf_counter", time.perf_counter_ns),
        ("monotonic", time.monotonic_ns),
        ("realtime", time.time_ns),
        (lambda: time.time_ns() + 10**18, lambda: time.time_ns() + 10**18),
    ],
)
def test_stamps_of_any_clock_become_the_pipeline_s(clock: Any, read: Callable[[], int]) -> None:
    with pipeline_of(program_on(HostDevice()), clock=clock) as pipeline:
        before = now()
        ticket = pipeline.submit(frame(1), stamp_ns=np.int64(read()))  # type: ignore[arg-type]
        after = now()
        assert before - 10**9 < ticket.stamp_ns < after + 10**9
        assert ticket.result(WAIT_S) is not None
        old = pipeline.submit(frame(1), stamp_ns=read() - 5 * 10**9)
        assert 4e3 < old.age_ms < 6e4


@pytest.mark.parametrize(
    ("clock", "error"), [("ros", ValueError), (None, ValueError), (time.time, TypeError)]
)
def test_a_clock_that_is_none_is_refused(clock: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="clock"):
        pipeline_of(program_on(HostDevice()), clock=clock)


def test_what_comes_with_a_frame_comes_out_with_its_answer() -> None:
    told: list[object] = []
    with pipeline_of(
        program_on(HostDevice()), policy="block", on_result=lambda t: told.append(t.meta)
    ) as pipeline:
        assert pipeline.latest() is None
        pipeline.submit(frame(1), meta={"camera": 1}).result(WAIT_S)
        with pipeline.input() as buffer:
            ticket = buffer.submit(meta="second")
        ticket.result(WAIT_S)
        assert pipeline.latest() is ticket
    assert told == [{"camera": 1}, "second"]


# Callbacks


@pytest.mark.parametrize(
    "error", [KeyError("mine"), IndexError("mine"), asyncio.CancelledError(), SystemExit(3)]
)
@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_callback_s_error_ends_nothing_and_hides_no_other(
    make: type[Device], error: BaseException
) -> None:
    called: list[object] = []

    def fails(ticket: Ticket[Any]) -> None:
        called.append("fails")
        raise error

    device = make()
    pipeline = pipeline_of(
        program_on(device), policy="block", slots=2, on_result=lambda t: called.append(t.sequence)
    )
    hold = threading.Event()
    first = pipeline.submit(frame(1))
    first.add_done_callback(lambda _: hold.wait(WAIT_S) and None)
    ticket = pipeline.submit(frame(2))
    for callback in (lambda _: called.append("a"), fails, lambda _: called.append("b")):
        ticket.add_done_callback(callback)
    hold.set()
    np.testing.assert_array_equal(ticket.result(WAIT_S), frame(2))
    is_true(lambda: called == [0, "a", "fails", "b", 1])
    is_true(lambda: bool(pipeline._worker.callback_errors))
    with pytest.raises(CallbackError, match="frame 2 was taken all the same") as raised:
        pipeline.submit(frame(3))
    assert raised.value.__cause__ is error
    assert raised.value.ticket is not None
    np.testing.assert_array_equal(raised.value.ticket.result(WAIT_S), frame(3))
    np.testing.assert_array_equal(pipeline.submit(frame(4)).result(WAIT_S), frame(4))
    pipeline.close()
    assert pipeline.counters().delivered == 4


def test_a_dropped_frame_s_callback_may_raise_anything_on_the_pipeline_s_thread() -> None:
    def cancelled(ticket: Ticket[Any]) -> None:
        raise asyncio.CancelledError

    device = SimulatedDevice()
    pipeline = pipeline_of(program_on(device), policy="block", slots=3, deadline_ms=1_000)
    pipeline._setup.schedule._drops_late = (
        True  # as with on_late="drop", whose warm-up takes any time
    )
    pipeline._setup.schedule.depth = 1
    device.stall()
    first = pipeline.submit(frame(1))
    dropped = pipeline.submit(frame(2), stamp_ns=now() - 2 * 10**9)
    dropped.add_done_callback(cancelled)
    device.resume()
    with pytest.raises(FrameDroppedError, match="deadline"):
        dropped.result(WAIT_S)
    first.result(WAIT_S)
    is_true(lambda: bool(pipeline._worker.callback_errors))
    with pytest.raises(CallbackError, match="CancelledError"):
        pipeline.submit(frame(3))
    assert pipeline.submit(frame(4)).result(WAIT_S) is not None
    pipeline.close()


def test_what_result_raises_in_a_callback_is_the_frame_s_own_outcome() -> None:
    asked: list[Ticket[Any]] = []

    def asks(ticket: Ticket[Any]) -> None:
        asked.append(ticket)
        ticket.result()

    with pipeline_of(
        program_on(HostDevice()), policy="block", deadline_ms=1e-6, on_late="drop", on_result=asks
    ) as pipeline:
        for _ in range(10):
            with pytest.raises(FrameDroppedError):
                pipeline.submit(frame(1)).result(WAIT_S)
    counters = pipeline.counters()
    assert (counters.submitted, counters.dropped) == (10, 10)


def test_no_callback_s_error_is_lost_between_two_who_are_told() -> None:
    def fails(ticket: Ticket[Any]) -> None:
        raise KeyError(ticket.sequence)

    pipeline = pipeline_of(program_on(HostDevice()), policy="block", slots=4, on_result=fails)
    taken = 0
    told: list[object] = []
    while taken < 5:
        try:
            pipeline.submit(frame(1)).result(WAIT_S)
        except CallbackError as error:
            told.append(error.__cause__.args[0])  # type: ignore[union-attr]
        taken += 1
    while True:
        try:
            pipeline.close()
        except CallbackError as error:
            told.append(error.__cause__.args[0])  # type: ignore[union-attr]
            continue
        break
    assert told == list(range(5))


def test_an_async_on_result_is_refused() -> None:
    async def on_result(ticket: object) -> None:
        pass

    with pytest.raises(TypeError, match="nothing can be awaited"):
        pipeline_of(program_on(HostDevice()), on_result=on_result)


# Tickets


def test_a_dropped_frame_s_error_keeps_nothing_alive() -> None:
    class Picture(np.ndarray):
        pass

    def ask() -> weakref.ref[Picture]:
        picture = np.zeros(9).view(Picture)
        ticket = pipeline.submit(frame(1))
        for _ in range(2):
            with suppress(FrameDroppedError):
                ticket.result(WAIT_S)
        return weakref.ref(picture)

    with pipeline_of(
        program_on(HostDevice()), policy="block", deadline_ms=1e-6, on_late="drop"
    ) as pipeline:
        gc.collect()
        gc.disable()
        try:
            assert [ask()() for _ in range(3)] == [None] * 3
        finally:
            gc.enable()


def test_a_ticket_in_another_process_says_that_it_is_there() -> None:
    with pipeline_of(program_on(HostDevice()), policy="block") as pipeline:
        ticket = pipeline.submit(frame(1), meta=threading.Lock())
        for error in (CallbackError("mine", ticket=ticket), FrameLostError("mine")):
            assert str(pickle.loads(pickle.dumps(error))) == "mine"
        there = pickle.loads(pickle.dumps(CallbackError("mine", ticket=ticket))).ticket
        np.testing.assert_array_equal(ticket.result(WAIT_S), frame(1))
    assert (there.sequence, there.stamp_ns) == (ticket.sequence, ticket.stamp_ns)
    with pytest.raises(ClosedError, match="send its result from there"):
        there.result()


@pytest.mark.parametrize("timeout_s", [float("nan"), "5", float("-inf")])
def test_a_timeout_that_is_none_is_refused(timeout_s: Any) -> None:
    device = SimulatedDevice()
    with pipeline_of(program_on(device)) as pipeline:
        device.stall()
        ticket = pipeline.submit(frame(1))
        with pytest.raises(ValueError, match="timeout_s: got"):
            ticket.result(timeout_s)
        device.resume()
        np.testing.assert_array_equal(ticket.result(float("inf")), frame(1))


def test_asyncio_wait_says_at_once_that_a_ticket_is_no_future() -> None:
    device = SimulatedDevice()

    async def main() -> None:
        with pytest.raises(TypeError, match=r"asyncio.ensure_future\(ticket\)"):
            await asyncio.wait([ticket])  # type: ignore[type-var]
        device.resume()
        done, _ = await asyncio.wait([asyncio.ensure_future(ticket)], timeout=WAIT_S)
        np.testing.assert_array_equal(done.pop().result(), frame(1))

    with pipeline_of(program_on(device)) as pipeline:
        device.stall()
        ticket = pipeline.submit(frame(1))
        asyncio.run(main())


# Stalls


def test_a_slow_callback_is_not_the_device_s_time() -> None:
    stamps: list[float] = []

    def slow(ticket: Ticket[Any]) -> None:
        time.sleep(0.1)
        pipeline.check_progress()  # twice the limit, and no stall
        stamps.append(0)

    pipeline = pipeline_of(
        program_on(HostDevice()), policy="block", slots=3, stall_ms=50, on_result=slow
    )
    for number in range(3):
        pipeline.submit(frame(number))
    pipeline.close()
    assert len(stamps) == 3


def test_a_stall_counts_from_the_last_answer() -> None:
    """Six frames were launched long ago, and each is answered at once when its turn comes."""
    device, raised = SimulatedDevice(), []

    def look(ticket: Ticket[Any]) -> None:
        try:
            pipeline.check_progress()
        except StalledError as error:
            raised.append(error)

    pipeline = pipeline_of(program_on(device), policy="block", slots=6, on_result=look)
    device.stall()
    tickets = [pipeline.submit(frame(number)) for number in range(6)]
    for entry in pipeline._setup.schedule.running:
        entry.launched_ns -= 60 * 10**9  # six times the limit
    device.resume()
    for number, ticket in enumerate(tickets):
        np.testing.assert_array_equal(ticket.result(WAIT_S), frame(number))
    pipeline.close()
    assert not raised


def test_a_launch_that_blocks_blinds_nobody() -> None:
    gate, begun = threading.Event(), threading.Event()
    blocked = pipeline_of(program_on(SimulatedDevice()), stall_ms=50, policy="block", slots=2)
    other = pipeline_of(program_on(SimulatedDevice()), stall_ms=50)
    for slot in blocked._worker.slots.all:

        def launch(self: Any, real: Callable[[], None] = slot.launch) -> None:
            begun.set()
            gate.wait(WAIT_S)
            real()

        slot.launch = types.MethodType(launch, slot)  # type: ignore[method-assign]
    thread = threading.Thread(target=blocked.submit, args=(frame(1),))
    thread.start()
    assert begun.wait(WAIT_S)
    assert blocked.counters().running == 1
    end = time.monotonic() + WAIT_S
    with pytest.raises(StalledError, match=r"holds frames \[0\]"):
        while time.monotonic() < end:
            blocked.check_progress()
    other.program.device.stall()  # type: ignore[attr-defined]
    with pytest.raises(StalledError):
        other.submit(frame(1)).result()
    other.program.device.resume()  # type: ignore[attr-defined]
    gate.set()
    thread.join(WAIT_S)
    blocked.close()
    other.close()


@pytest.mark.parametrize("name", ["edgevision watchdog", "edgevision pipeline"])
def test_without_a_thread_no_pipeline_is_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def limited(self: threading.Thread) -> None:
        if self.name == name:
            raise RuntimeError("can't start new thread")
        start(self)

    device = SimulatedDevice()
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_thread", None)  # another test's may still run
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(RunError, match=r"none can be started.*pids limit"):
            pipeline_of(program_on(device))
    assert not any(device.live.values())
    with pipeline_of(program_on(device)) as pipeline:
        np.testing.assert_array_equal(pipeline.submit(frame(1)).result(WAIT_S), frame(1))


# Opening again


def test_of_two_who_reopen_one_does() -> None:
    device = SimulatedDevice()
    program = program_on(device, no_graph_reason="the script says so")
    others = set(threading.enumerate())
    with pipeline_of(program, policy="block", slots=4) as pipeline:
        for _ in range(5):
            program.fail_at(1)
            with pytest.raises(RunError):
                pipeline.submit(frame(1)).result(WAIT_S)
            barrier, outcomes = threading.Barrier(2), []

            def reopen(barrier: Any = barrier, outcomes: Any = outcomes) -> None:
                barrier.wait()
                try:
                    pipeline.reopen()
                    outcomes.append("reopened")
                except RunError as error:
                    outcomes.append(str(error))

            threads = [threading.Thread(target=reopen) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
            told = "reopen() is for a pipeline that has failed; this one has not"
            assert sorted(outcomes) == [told, "reopened"]
            np.testing.assert_array_equal(pipeline.submit(frame(2)).result(WAIT_S), frame(2))
        names = [thread.name for thread in set(threading.enumerate()) - others]
        assert names.count("edgevision pipeline") == 1
    assert not any(device.live.values())


def test_reopening_in_a_callback_says_where_to_and_changes_nothing() -> None:
    raised: list[RunError] = []

    def reopen(ticket: Ticket[Any]) -> None:
        try:
            pipeline.reopen()
        except RunError as error:
            raised.append(error)

    device = SimulatedDevice()
    with pipeline_of(program_on(device), policy="block", slots=2) as pipeline:
        device.stall()
        ticket = pipeline.submit(frame(1))
        ticket.add_done_callback(reopen)
        fail_first(pipeline)
        device.resume()
        with pytest.raises(FrameLostError):
            ticket.result(WAIT_S)
        is_true(lambda: bool(raised))
        assert "from the thread that submits" in str(raised[0])
        pipeline.reopen()
        np.testing.assert_array_equal(pipeline.submit(frame(2)).result(WAIT_S), frame(2))


def test_reopening_inside_a_lent_buffer_is_refused() -> None:
    device = SimulatedDevice()
    with pipeline_of(program_on(device), policy="block", slots=2) as pipeline:
        device.stall()
        ticket = pipeline.submit(frame(1))
        fail_first(pipeline)
        device.resume()
        with pipeline.input():
            with pytest.raises(FrameLostError):
                ticket.result(WAIT_S)
            with pytest.raises(RunError, match="Leave the block first"):
                pipeline.reopen()
        pipeline.reopen()
        np.testing.assert_array_equal(pipeline.submit(frame(2)).result(WAIT_S), frame(2))


def test_a_thread_that_waits_for_what_it_holds_is_told() -> None:
    with pipeline_of(program_on(HostDevice()), policy="block", slots=2) as pipeline:
        with (
            pipeline.input(),
            pipeline.input(),
            pytest.raises(RunError, match="holds every one itself"),
        ):
            pipeline.submit(frame(1))
        np.testing.assert_array_equal(pipeline.submit(frame(2)).result(WAIT_S), frame(2))


# The end


def test_a_forgotten_pipeline_is_collected_and_warned_of() -> None:
    device = SimulatedDevice()

    def forget() -> None:
        pipeline: Any = pipeline_of(
            program_on(device), policy="block", on_result=lambda _: pipeline.counters()
        )
        pipeline.submit(frame(1)).result(WAIT_S)

    forget()
    with pytest.warns(ResourceWarning, match=r"the pipeline, opened at .*was never closed"):
        is_true(lambda: gc.collect() >= 0 and not any(device.live.values()))


def test_closing_waits_for_every_caller() -> None:
    device = SimulatedDevice()
    pipeline = pipeline_of(program_on(device), policy="block")
    device.stall()
    pipeline.submit(frame(1))
    closers = [threading.Thread(target=pipeline.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    is_true(lambda: not pipeline.is_open)
    closers[1].join(0.2)
    assert all(thread.is_alive() for thread in closers)
    device.resume()
    for thread in closers:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not any(device.live.values())


def test_a_ticket_keeps_no_engine() -> None:
    with pipeline_of(program_on(HostDevice()), policy="block") as pipeline:
        ticket = pipeline.submit(frame(1))
        ticket.result(WAIT_S)
        worker = weakref.ref(pipeline._worker)
    del pipeline
    gc.collect()
    is_true(lambda: worker() is None)
    assert ticket.is_done


def test_who_waits_for_a_slot_of_a_pipeline_that_fails_is_told() -> None:
    program = program_on(HostDevice())
    raised: list[RunError] = []

    def submit() -> None:
        try:
            pipeline.submit(frame(3))
        except RunError as error:
            raised.append(error)

    with pipeline_of(program, policy="block", slots=1) as pipeline:
        with pipeline.input() as buffer:
            waiting = threading.Thread(target=submit)
            waiting.start()
            is_true(lambda: bool(pipeline._worker.slots._waiting))
            program.fail_at(1)
            with pytest.raises(FrameLostError):
                buffer.submit().result(WAIT_S)
        waiting.join(WAIT_S)
        assert "Call reopen() to go on" in str(raised[0])
        pipeline.reopen()
        np.testing.assert_array_equal(pipeline.submit(frame(4)).result(WAIT_S), frame(4))


def test_frames_after_close_are_refused_with_a_closed_error() -> None:
    pipeline = pipeline_of(program_on(HostDevice()))
    pipeline.close()
    for use in (lambda: pipeline.submit(frame(1)), lambda: pipeline.input().__enter__()):
        with pytest.raises(ClosedError):
            use()
