"""A device that does not answer is reported, with what it holds, and never waited for for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edgevision.errors import ClosedError, StalledError
from edgevision.runtime.stream.ticket import Ticket
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, pipeline_of, program_on


@pytest.fixture
def device() -> Iterator[SimulatedDevice]:
    made = SimulatedDevice()
    yield made
    made.resume()


def test_waiting_for_a_ticket_ends(device: SimulatedDevice) -> None:
    with pipeline_of(program_on(device), stall_ms=1.0) as pipeline:
        device.stall()
        ticket = pipeline.submit(frame(1))
        with pytest.raises(
            StalledError, match=r"simulated device has not answered.*holds frames \[0\]"
        ):
            ticket.result()
        with pytest.raises(StalledError):
            asyncio.run(awaited(ticket))
        np.testing.assert_array_equal(answer_after_all(device, ticket), frame(1))


def answer_after_all(device: SimulatedDevice, ticket: Ticket[np.ndarray]) -> np.ndarray:
    """Return what comes once the device goes on; until then `result` says that it is stuck."""
    done = threading.Event()
    ticket.add_done_callback(lambda _: done.set())
    device.resume()
    assert done.wait(20)
    return ticket.result()


async def awaited(ticket: object) -> None:
    await ticket  # type: ignore[misc]


def test_submitting_ends(device: SimulatedDevice) -> None:
    with pipeline_of(program_on(device), stall_ms=1.0, policy="block", slots=2) as pipeline:
        device.stall()
        tickets = [pipeline.submit(frame(number)) for number in (1, 2)]
        with pytest.raises(StalledError, match=r"holds frames \[0, 1\]"):
            pipeline.submit(frame(3))
        np.testing.assert_array_equal(answer_after_all(device, tickets[1]), frame(2))


def test_the_latest_policy_never_waits_for_the_device(device: SimulatedDevice) -> None:
    with pipeline_of(program_on(device), stall_ms=60_000.0) as pipeline:
        device.stall()
        for number in range(100):
            pipeline.submit(frame(number))
        assert pipeline.counters().dropped == 98
        device.resume()


def test_closing_ends_and_says_so(device: SimulatedDevice) -> None:
    pipeline = pipeline_of(program_on(device), stall_ms=1.0)
    device.stall()
    pipeline.submit(frame(1))
    with pytest.raises(StalledError):
        pipeline.close()
    with pytest.raises(ClosedError):
        pipeline.submit(frame(2))
    device.resume()
    pipeline._worker.thread.join(20)
    assert not any(device.live.values())


def test_closing_wakes_those_who_wait_for_a_slot(device: SimulatedDevice) -> None:
    pipeline = pipeline_of(program_on(device), policy="block", slots=1)
    device.stall()
    pipeline.submit(frame(1))
    raised: list[Exception] = []
    waiting = threading.Event()

    def submit() -> None:
        waiting.set()
        try:
            pipeline.submit(frame(2))
        except ClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    waiting.wait(20)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    device.resume()
    closing.join(20)
    thread.join(20)
    # It got the slot before the pipeline closed, or was told.
    assert len(raised) + pipeline.counters().delivered == 2
