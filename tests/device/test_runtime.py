"""Sessions and pipelines on every device: right bytes, borrowed views, wrong uses, threads."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgevision.errors import (
    ClosedError,
    FrameDroppedError,
    FrameError,
    FrameLostError,
    RunError,
    StaleViewError,
)
from edgevision.runtime.device.device import Device
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.testing import ScriptedProgram
from tests.parts.echo import ECHO, FRAME, frame, pipeline_of, program_on


@pytest.fixture
def program(device: Device) -> Iterator[ScriptedProgram]:
    made = program_on(device)
    yield made
    made.close()


def session_of(program: ScriptedProgram, **options: Any) -> Session:
    session = Session(program, {}, RunOptions(**options))
    session.warm_up()
    return session


def echoed(session: Session, number: int) -> np.ndarray:
    return session.run({"frame": frame(number)})["echo"]


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "plain"])
def test_a_session_gives_right_bytes(program: ScriptedProgram, graph: bool) -> None:
    with session_of(program, graph=graph) as session:
        for number in range(20):
            np.testing.assert_array_equal(echoed(session, number), frame(number))


def test_a_session_says_on_what_it_runs_and_why_not_as_a_graph(program: ScriptedProgram) -> None:
    device = program.device
    with session_of(program) as session:
        told = session.explain()
        assert device.name in told
        assert device.binding in told
        if device.capabilities.graphs:
            assert "one graph launch a frame" in told
        else:
            assert device.capabilities.reasons["graphs"] in told
    with session_of(program_on(device, no_graph_reason="the script says so")) as session:
        assert "no graph" in session.explain()
    with pytest.warns(DeprecationWarning, match="now no_graph_reason"):
        former = program_on(device, no_graph="the script says so")
    assert former.no_graph_reason == "the script says so"
    with session_of(program_on(device), graph=False) as session:
        assert "no graph" in session.explain()


def test_times_are_measured(program: ScriptedProgram) -> None:
    with session_of(program) as session:
        outputs, times = session.run_timed({"frame": frame(1)})
        np.testing.assert_array_equal(outputs["echo"], frame(1))
        parts = (times.copy_in_ms, times.compute_ms, times.copy_out_ms)
        assert min(parts) >= 0
        assert times.total_ms > sum(parts) * 0.99  # two clocks
    with session_of(program_on(program.device), timing=False) as session:
        assert session.run_timed({"frame": frame(1)})[1].total_ms > 0


def test_a_view_is_the_answer_until_its_block_ends(program: ScriptedProgram) -> None:
    with session_of(program) as session:
        with session.run_view({"frame": frame(3)}) as view:
            np.testing.assert_array_equal(view["echo"], frame(3))
            with pytest.raises(RunError, match="Leave the block first"):
                session.close()
        with pytest.raises(StaleViewError, match="holds a newer frame"):
            view["echo"]
        with pytest.raises(StaleViewError, match="inside a block only"):
            session.run_view({"frame": frame(4)})["echo"]
        with (
            pytest.raises(FrameError),
            session.run_view({"frame": frame(4)[0]}),
        ):
            pass
        np.testing.assert_array_equal(echoed(session, 5), frame(5))
    with pytest.raises(StaleViewError):
        view["echo"]


def test_no_other_thread_gets_the_memory_of_a_view(program: ScriptedProgram) -> None:
    with session_of(program) as session:
        other = threading.Thread(target=echoed, args=(session, 7))
        with session.run_view({"frame": frame(3)}) as view:
            output = view["echo"]
            other.start()
            # It waits for the slot, or it would have run by now; slow is not a failure here.
            other.join(0.05)
            np.testing.assert_array_equal(output, frame(3))
        other.join(20)
        assert not other.is_alive()


def test_frames_are_written_in_place(program: ScriptedProgram) -> None:
    with session_of(program) as session:
        with session.input() as buffer:
            for number in (1, 2):
                buffer["frame"][:] = frame(number)
                view = buffer.run()
                np.testing.assert_array_equal(view["echo"], frame(number))
        with pytest.raises(StaleViewError):
            view["echo"]
        with pytest.raises(ClosedError, match="used after its"):
            buffer["frame"]
        with pytest.raises(ClosedError, match="used after its"):
            buffer.run()
        np.testing.assert_array_equal(echoed(session, 9), frame(9))


def test_closing_inside_a_lent_buffer_is_refused(program: ScriptedProgram) -> None:
    with (
        session_of(program) as session,
        session.input(),
        pytest.raises(RunError, match="Leave the block first"),
    ):
        session.close()


def test_a_refused_run_is_an_error_and_the_session_lives_on(program: ScriptedProgram) -> None:
    with session_of(program, graph=False) as session:
        program.fail_at(1)
        with pytest.raises(RunError, match="as the script says"):
            echoed(session, 1)
        np.testing.assert_array_equal(echoed(session, 2), frame(2))


def test_threads_share_slots(program: ScriptedProgram) -> None:
    wrong: list[int] = []
    with session_of(program, slots=3) as session:

        def hammer(seed: int) -> None:
            for i in range(30):
                number = (seed * 31 + i) % 250
                if not np.array_equal(echoed(session, number), frame(number)):
                    wrong.append(number)

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_thousand_rounds_leave_nothing(program: ScriptedProgram, rounds: int) -> None:
    device = program.device
    free_bytes, _ = device.memory()
    for number in range(rounds if device.capabilities.async_copies else 100):
        with session_of(program_on(device)) as session:
            np.testing.assert_array_equal(echoed(session, number % 250), frame(number % 250))
    gc.collect()
    if device.capabilities.async_copies:
        assert device.memory()[0] == free_bytes


@pytest.mark.parametrize(("policy", "slots"), [("block", 1), ("block", 3), ("drop_oldest", 3)])
def test_a_pipeline_answers_in_order(program: ScriptedProgram, policy: str, slots: int) -> None:
    told: list[int] = []
    with pipeline_of(
        program, policy=policy, slots=slots, on_result=lambda t: told.append(t.sequence)
    ) as pipeline:
        tickets = []
        start_ns = time.perf_counter_ns()
        for number in range(40):
            tickets.append(pipeline.submit(frame(number), stamp_ns=start_ns + number))
            if policy == "drop_oldest":
                tickets[-1].result(timeout_s=20)
        for number, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(number))
            assert ticket.stamp_ns == start_ns + number
    assert told == list(range(40))
    counters = pipeline.counters()
    assert (counters.submitted, counters.delivered, counters.dropped) == (40, 40, 0)


def test_the_latest_frame_is_always_answered(program: ScriptedProgram) -> None:
    with pipeline_of(program, policy="latest") as pipeline:
        tickets = [pipeline.submit(frame(number)) for number in range(50)]
        np.testing.assert_array_equal(tickets[-1].result(timeout_s=20), frame(49))
    counters = pipeline.counters()
    assert counters.delivered + counters.dropped == 50
    for number, ticket in enumerate(tickets):
        if isinstance(ticket.error(), FrameDroppedError):
            with pytest.raises(FrameDroppedError, match="a newer frame took its place"):
                ticket.result()
        else:
            np.testing.assert_array_equal(ticket.result(), frame(number))


def test_a_pipeline_lends_its_memory(program: ScriptedProgram) -> None:
    with pipeline_of(program, policy="block", slots=2) as pipeline:
        for number in range(10):
            with pipeline.input() as buffer:
                buffer["frame"][:] = frame(number)
                ticket = buffer.submit()
            np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(number))
            with pytest.raises(ClosedError):
                buffer.submit()
        with pipeline.input(), pytest.raises(RunError, match="Leave the block first"):
            pipeline.close()


def test_tickets_can_be_awaited_and_call_back(program: ScriptedProgram) -> None:
    done: list[int] = []

    async def main() -> None:
        for number in range(20):
            ticket = pipeline.submit(frame(number))
            ticket.add_done_callback(lambda t: done.append(t.sequence))
            np.testing.assert_array_equal(await ticket, frame(number))
            np.testing.assert_array_equal(await ticket, frame(number))

    with pipeline_of(program, policy="block") as pipeline:
        asyncio.run(main())
    assert done == list(range(20))


def test_an_engine_error_names_the_lost_frames_and_the_pipeline_reopens(
    program: ScriptedProgram,
) -> None:
    with pipeline_of(
        program, policy="block", slots=2, run_options=RunOptions(graph=False)
    ) as pipeline:
        pipeline.submit(frame(0)).result(timeout_s=20)
        program.fail_at(1)
        ticket = pipeline.submit(frame(1))
        with pytest.raises(FrameLostError, match="frame 1: the engine failed"):
            ticket.result(timeout_s=20)
        with pytest.raises(RunError, match=r"Lost frames: \[1\]. Call reopen"):
            pipeline.submit(frame(2))
        pipeline.reopen()
        np.testing.assert_array_equal(pipeline.submit(frame(3)).result(timeout_s=20), frame(3))
        with pytest.raises(RunError, match="this one has not"):
            pipeline.reopen()
    assert pipeline.counters().lost == 1


def test_a_callback_s_error_is_told(program: ScriptedProgram) -> None:
    def fails(ticket: object) -> None:
        raise KeyError("mine")

    pipeline = pipeline_of(program, policy="block", on_result=fails)
    np.testing.assert_array_equal(pipeline.submit(frame(1)).result(timeout_s=20), frame(1))
    with pytest.raises(RunError, match=r"a callback of the pipeline raised KeyError\('mine'\)"):
        pipeline.close()


def test_a_pipeline_may_be_closed_from_its_callback(program: ScriptedProgram) -> None:
    closed = threading.Event()

    def close(ticket: object) -> None:
        pipeline.close()
        closed.set()

    pipeline = pipeline_of(program, policy="block", on_result=close)
    pipeline.submit(frame(1)).result(timeout_s=20)
    assert closed.wait(20)
    with pytest.raises(ClosedError, match=r"opened at .*echo\.py:\d+"):
        pipeline.submit(frame(2))
    pipeline._worker.thread.join(20)


@pytest.mark.parametrize(
    ("fed", "message"),
    [
        (np.zeros(FRAME.shape, np.float32), "got float32"),
        (np.zeros((1, 8, 12, 4), np.uint8), r"got uint8\[1, 8, 12, 4\]"),
        ([1, 2, 3], "got list, expected a numpy array"),
    ],
)
def test_wrong_frames_are_refused_and_nothing_is_dropped_for_them(
    program: ScriptedProgram, fed: object, message: str
) -> None:
    with pipeline_of(program, slots=2) as pipeline:
        tickets = [pipeline.submit(frame(number)) for number in range(3)]
        with pytest.raises(FrameError, match=message):
            pipeline.submit(fed)  # type: ignore[arg-type]
        np.testing.assert_array_equal(tickets[-1].result(timeout_s=20), frame(2))


class CudaArray:
    """An array of another library, on the device, written by one of its streams."""

    def __init__(self, address: int, **changes: object) -> None:
        self.__cuda_array_interface__ = {
            "shape": FRAME.shape,
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
            "stream": 1,
            "strides": None,
            **changes,
        }


def test_arrays_on_the_device_are_ordered_after_their_stream(program: ScriptedProgram) -> None:
    device = program.device
    if not device.capabilities.async_copies:
        with (
            session_of(program) as session,
            pytest.raises(FrameError, match="this model runs on the CPU"),
        ):
            session.run({"frame": CudaArray(4096)})
        return
    theirs = device.stream()
    there = device.allocate(FRAME.size_bytes, label="theirs")
    source = device.allocate_host(FRAME.size_bytes, label="source")
    stream = theirs.handle if "foreign_streams" not in device.capabilities.reasons else None
    with session_of(program) as session:
        for number in range(5):
            source.view(FRAME)[:] = frame(number)
            theirs.copy(there, source, FRAME.size_bytes)
            if stream is None:
                theirs.synchronize()
            outputs = session.run({"frame": CudaArray(there.address, stream=stream)})
            np.testing.assert_array_equal(outputs["echo"], frame(number))
            np.testing.assert_array_equal(echoed(session, number + 100), frame(number + 100))
    for resource in (source, there, theirs):
        resource.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "has version 1, expected 2 or 3"),
        ({"mask": object()}, "no use for the mask"),
        ({"stream": 0}, "leaves undefined"),
        ({"strides": (1, 1, 1, 1)}, "gaps or another order"),
        ({"typestr": "<f4"}, "got float32"),
    ],
)
def test_device_arrays_that_cannot_be_trusted_are_refused(
    program: ScriptedProgram, changes: dict[str, object], message: str
) -> None:
    if not program.device.capabilities.async_copies:
        message = f"{message}|runs on the CPU"
    with session_of(program) as session, pytest.raises(FrameError, match=message):
        session.run({"frame": CudaArray(4096, **changes)})


NEW_CAPSULE = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))


class Dlpack:
    """An array of another library, on GPU `ordinal`, given by DLPack as torch does."""

    def __init__(self, address: int, *, ordinal: int = 0, strides: tuple[int, ...] = ()) -> None:
        # torch's version 2, without a stream: DLPack must be asked first.
        self.__cuda_array_interface__ = {"version": 2, "shape": (), "data": (0, False)}
        self._where = (2, ordinal)
        shape, given = ((ctypes.c_int64 * 4)(*extents) for extents in (FRAME.shape, strides))
        at = [ctypes.addressof(shape), ctypes.addressof(given) if strides else 0]
        tensor = struct.pack("PiiiBBHPPQ", address, *self._where, 4, 1, 8, 1, *at, 0)
        self._tensor = ctypes.create_string_buffer(tensor, len(tensor))
        self._kept = (shape, given)
        self.asked: list[object] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._where

    def __dlpack__(self, *, stream: int) -> object:
        self.asked.append(stream)
        return NEW_CAPSULE(ctypes.addressof(self._tensor), b"dltensor", None)


GIVEN = {
    "a stream that is named": lambda at, handle: CudaArray(at, stream=handle),
    "ready, no stream": lambda at, handle: CudaArray(at, stream=None),
    "version 2": lambda at, handle: CudaArray(at, version=2),
    "dlpack": lambda at, handle: Dlpack(at),
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("policy", ["latest", "block", "drop_oldest"])
def test_a_device_array_may_be_written_again_once_submit_returns(
    program: ScriptedProgram, given: str, policy: str
) -> None:
    """The camera uses one buffer for every frame, and says on its stream what it may say there."""
    device = program.device
    if not device.capabilities.async_copies:
        return  # see the test above: the host takes none
    there = device.allocate(FRAME.size_bytes, label="camera")
    source = device.allocate_host(FRAME.size_bytes, label="source")
    made = None
    if given in ("version 2", "dlpack") or "foreign_streams" in device.capabilities.reasons:
        stream = device.foreign_stream(1)
    else:
        stream = made = device.stream()

    def write(number: int) -> None:
        stream.synchronize()  # for `source`; nobody waits for what is queued now
        source.view(FRAME)[:] = frame(number)
        stream.copy(there, source, FRAME.size_bytes)
        if given == "ready, no stream":
            stream.synchronize()

    answered = 0
    with pipeline_of(program, policy=policy, slots=3) as pipeline:
        for number in range(0, 20, 2):
            write(number)
            pipeline.submit(frame(200 + number))
            ticket = pipeline.submit(GIVEN[given](there.address, stream.handle))  # type: ignore[arg-type]
            write(number + 1)
            try:
                np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(number))
                answered += 1
            except FrameDroppedError:  # it was the newest: only a frame of no slot
                assert policy == "latest"
    assert answered
    stream.synchronize()
    for resource in filter(None, (source, there, made)):
        resource.close()


def test_a_slot_whose_device_frame_was_dropped_takes_a_host_frame(program: ScriptedProgram) -> None:
    device = program.device
    if not device.capabilities.async_copies:
        return
    there = device.allocate(FRAME.size_bytes, label="camera")
    stream = device.foreign_stream(1)
    with pipeline_of(program, policy="latest", slots=2) as pipeline:
        for number in range(20):
            stream.fill(there, number, FRAME.size_bytes)
            pipeline.submit(CudaArray(there.address, stream=1))  # type: ignore[arg-type]
            ticket = pipeline.submit(frame(number))
        np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(number))
    stream.synchronize()
    there.close()


def test_dlpack_is_given_the_legacy_stream_and_both_copies_are_checked(
    program: ScriptedProgram,
) -> None:
    device = program.device
    if not device.capabilities.async_copies:
        return
    there = device.allocate(FRAME.size_bytes, label="theirs")
    with session_of(program) as session:
        # torch writes 1 for the stride of an axis that has one element.
        for strides in ((), (288, 36, 3, 1), (1, 36, 3, 1)):
            given = Dlpack(there.address, strides=strides)
            session.run({"frame": given})
            assert given.asked == [1]
        with pytest.raises(FrameError, match="on GPU 1, this model runs on GPU 0"):
            session.run({"frame": Dlpack(there.address, ordinal=1)})
        with pytest.raises(FrameError, match="gaps or another order"):
            session.run({"frame": Dlpack(there.address, strides=(1, 1, 8, 96))})
    there.close()


def test_host_arrays_of_other_libraries_come_by_dlpack(program: ScriptedProgram) -> None:
    class Other:
        """Anything but a numpy array that gives its memory by DLPack."""

        def __init__(self, array: np.ndarray) -> None:
            self._array = array

        def __dlpack_device__(self) -> tuple[int, int]:
            return self._array.__dlpack_device__()

        def __dlpack__(self, **options: Any) -> object:
            return self._array.__dlpack__(**options)

    with session_of(program) as session:
        outputs = session.run({"frame": Other(frame(8))})
        np.testing.assert_array_equal(outputs["echo"], frame(8))


def test_answers_have_the_right_shape(program: ScriptedProgram) -> None:
    with session_of(program) as session:
        answer = echoed(session, 1)
        assert (answer.shape, answer.dtype) == (ECHO.shape, ECHO.dtype.numpy)
