"""A control loop around a pipeline: answers by `async for`, closing, the log, the trace."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision.errors import FileWriteError, FrameLostError, RunError, StalledError
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.stream import log
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, pipeline_of, program_on

WAIT_S = 20.0
LOGGER = "edgevision.runtime.stream.log"


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_loop_gets_every_answer_in_order_and_ends_with_the_pipeline(make: type[Device]) -> None:
    async def main() -> None:
        got: list[Any] = []
        async with pipeline_of(program_on(make()), policy="block", slots=8) as pipeline:

            async def listen() -> None:
                async for ticket in pipeline:
                    np.testing.assert_array_equal(ticket.result(0), frame(ticket.sequence))
                    got.append((ticket.sequence, ticket.meta))

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0)  # it listens from now on
            for number in range(20):
                await asyncio.wait_for(pipeline.submit(frame(number), meta=-number), WAIT_S)
            latest = pipeline.latest()
            assert latest is not None
            assert (latest.sequence, latest.meta) == (19, -19)
        await asyncio.wait_for(listening, WAIT_S)
        assert got == [(number, -number) for number in range(20)]
        assert not pipeline._setup.listeners, "a loop that has ended is forgotten"

    asyncio.run(main())


def test_a_slow_loop_gets_the_newest() -> None:
    async def main() -> list[int]:
        with pipeline_of(program_on(HostDevice()), policy="block", slots=2) as pipeline:
            answers = aiter_of(pipeline)
            for number in range(5):
                pipeline.submit(frame(number)).result(WAIT_S)
        return [ticket.sequence async for ticket in answers]

    assert asyncio.run(main()) == [3, 4]


def aiter_of(pipeline: Any) -> Any:
    return pipeline.__aiter__()  # aiter() came with 3.10, and mypy's ignorance of Any with it


def test_a_loop_may_give_up_waiting_and_go_on() -> None:
    async def main() -> None:
        async with pipeline_of(program_on(HostDevice())) as pipeline:
            answers = aiter_of(pipeline)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(answers.__anext__(), 0.01)
            pipeline.submit(frame(1))
            ticket = await asyncio.wait_for(answers.__anext__(), WAIT_S)
            np.testing.assert_array_equal(ticket.result(0), frame(1))

    asyncio.run(main())


def test_a_loop_is_told_of_an_engine_that_failed_and_of_a_device_that_is_stuck() -> None:
    device = SimulatedDevice()
    program = program_on(device, no_graph_reason="the script says so")

    async def main() -> None:
        async with pipeline_of(program, policy="block", stall_ms=50) as pipeline:
            answers = aiter_of(pipeline)
            program.fail_at(1)
            with pytest.raises(RunError, match="refused"):
                pipeline.submit(frame(1)).result(WAIT_S)
            with pytest.raises(RunError, match="Call reopen"):
                await asyncio.wait_for(answers.__anext__(), WAIT_S)
            pipeline.reopen()
            pipeline.submit(frame(2)).result(WAIT_S)
            assert (await asyncio.wait_for(answers.__anext__(), WAIT_S)).sequence == 1
            device.stall()
            pipeline.submit(frame(3))
            with pytest.raises(StalledError, match=r"holds frames \[2\]"):
                await asyncio.wait_for(answers.__anext__(), WAIT_S)
            device.resume()

    asyncio.run(main())


def test_closing_does_not_hold_up_the_loop() -> None:
    device = SimulatedDevice()

    async def main() -> None:
        pipeline = pipeline_of(program_on(device), policy="block")
        device.stall()
        ticket = pipeline.submit(frame(1))
        closing = asyncio.create_task(pipeline.aclose())
        while pipeline.is_open:
            await asyncio.sleep(0)
        device.resume()  # nobody would, if it held up the loop
        await asyncio.wait_for(closing, WAIT_S)
        np.testing.assert_array_equal(ticket.result(0), frame(1))
        await pipeline.aclose()

    asyncio.run(main())
    assert not any(device.live.values())


def test_closing_is_refused_in_a_lent_block_and_hides_nobody_s_error() -> None:
    async def main() -> None:
        async with pipeline_of(program_on(HostDevice())) as pipeline:
            with pipeline.input(), pytest.raises(RunError, match="Leave the block first"):
                await pipeline.aclose()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())


def test_threads_tell_what_they_are() -> None:
    others = set(threading.enumerate())
    with pipeline_of(program_on(HostDevice())):
        names = {thread.name for thread in set(threading.enumerate()) - others}
    assert "edgevision pipeline" in names
    assert names <= {"edgevision pipeline", "edgevision watchdog"}


# The log


def test_the_log_has_a_line_of_each_kind_and_not_one_for_each_frame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Five seconds do not pass here: the time is the test's."""
    caplog.set_level(logging.INFO, LOGGER)
    telling = log.PipelineLog("a device")
    pipeline = pipeline_of(program_on(HostDevice()), policy="block", deadline_ms=1e-6)
    for number in range(10):
        pipeline.submit(frame(number)).result(WAIT_S)
    ticket = pipeline.submit(frame(10))
    pipeline.close()
    for _ in range(50):
        if telling.are_drops_due():
            telling.drops(pipeline.counters())
        telling.stalled(1000.0)
        telling.callback_raised(KeyError("mine"), ticket)
    telling.stalled(0.0)
    telling.stalled(2000.0)
    telling.failed(RunError("broken"), [1, 2])
    assert [(r.levelname, r.getMessage().partition(";")[0]) for r in caplog.records] == [
        ("INFO", "dropped 0 frames, 11 were late"),
        ("WARNING", "a device has not answered for 1000 ms"),
        ("ERROR", "a callback of the pipeline raised"),
        ("WARNING", "a device has not answered for 2000 ms"),
        ("ERROR", "the engine failed, and frames [1, 2] are lost: broken"),
    ]


# The trace


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_a_trace_shows_every_frame_s_stages(make: type[Device], tmp_path: Path) -> None:
    file, device = tmp_path / "trace.json", make()
    program = program_on(device, no_graph_reason="the script says so")
    with pipeline_of(program, policy="drop_oldest", slots=3, trace=file) as pipeline:
        for number in range(20):
            pipeline.submit(frame(number))
        program.fail_at(1)
        with pytest.raises(RunError):
            while True:
                pipeline.submit(frame(20)).result(WAIT_S)
        pipeline.reopen()
        pipeline.submit(frame(21)).result(WAIT_S)
    counters = pipeline.counters()
    events = json.loads(file.read_bytes())
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {"edgevision pipeline", "callbacks", "slot 0", "slot 1", "slot 2"}
    spans = [event for event in events if event["ph"] == "X"]
    stages = ["copy in", "wait", "run", "answer", "callbacks"]
    for _, own in groupby(spans, key=lambda event: event["args"]["frame"]):
        assert [event["name"] for event in own] == stages
    assert len(spans) == 5 * counters.delivered
    for row in range(4):
        own = sorted((s for s in spans if s["tid"] == row), key=lambda event: event["ts"])
        for before, after in pairwise(own):
            assert before["dur"] >= 0
            assert before["ts"] + before["dur"] <= after["ts"] + 1e-3, "readers nest what overlaps"
    dropped = [event["args"] for event in events if event["ph"] == "i"]
    assert len(dropped) == counters.dropped + counters.lost
    assert {event["why"] for event in dropped} <= {
        "a newer frame took its place",
        "the engine failed",
    }


def test_a_trace_replaces_no_file(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text("the user's")
    with pytest.raises(FileWriteError, match=r"trace.json: File exists. Give a name that is free"):
        pipeline_of(program_on(HostDevice()), trace=file)
    assert file.read_text() == "the user's"


def test_a_pipeline_that_cannot_be_opened_leaves_a_whole_trace(tmp_path: Path) -> None:
    file, program = tmp_path / "trace.json", program_on(HostDevice())
    program.fail_at(1)
    with pytest.raises(RunError, match="refused"):
        pipeline_of(program, trace=file)
    assert json.loads(file.read_bytes())


def test_a_trace_that_cannot_be_written_ends_and_nothing_else_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "trace.json"
    with pipeline_of(program_on(HostDevice()), policy="block", trace=file) as pipeline:
        trace: Any = pipeline._setup.trace
        trace._file.close()
        trace._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the trace closes it
        for number in range(3):
            np.testing.assert_array_equal(
                pipeline.submit(frame(number)).result(WAIT_S), frame(number)
            )
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["the trace ends here"]


def test_what_is_lost_is_no_answer_of_a_loop() -> None:
    device = SimulatedDevice()
    program = program_on(device, no_graph_reason="the script says so")

    async def main() -> None:
        pipeline = pipeline_of(program, policy="block")
        answers = aiter_of(pipeline)
        program.fail_at(1)
        with pytest.raises((FrameLostError, RunError)):
            pipeline.submit(frame(1)).result(WAIT_S)
        await pipeline.aclose()
        assert [ticket async for ticket in answers] == []

    asyncio.run(main())
