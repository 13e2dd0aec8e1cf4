"""Drives a pipeline through a schedule of steps, and checks what became of every frame."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

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
from tests.parts.echo import FRAME, POISON, frame, pipeline_of, program_on
from tests.pipeline.test_interrupted import in_time, is_interrupted

WAIT_S = 20
MOMENTS = 80  # of a `submit`, about
SECOND_NS = 10**9
# Each is a method of Drive; what ends a schedule early is there once.
STEPS = (
    *("submit", "submit", "submit", "poison", "lend", "abandon", "camera", "camera", "result"),
    *("old", "wrong_stamp", "raises", "raises", "reopen", "reopen_elsewhere", "reopen_inside"),
    *("interrupt", "interrupt", "interrupt", "interrupt_result", "interrupt_reopen"),
    *("close_inside", "close_elsewhere"),
)
CLOCKS: dict[str, tuple[Any, Callable[[], int]]] = {
    "perf_counter": ("perf_counter", time.perf_counter_ns),
    "monotonic": ("monotonic", time.monotonic_ns),
    "realtime": ("realtime", time.time_ns),
    "of a camera": (lambda: time.time_ns() - 3 * 10**17, lambda: time.time_ns() - 3 * 10**17),
}
WRONG_STAMPS: list[Any] = [1.5, "1", None.__class__, True, 10**19, -(10**15), float("nan")]


class OwnError(Exception):
    pass


class OwnExit(BaseException):
    pass


RAISED: list[type[BaseException]] = [
    *(OwnError, OwnExit, SystemExit, asyncio.CancelledError, IndexError, RuntimeError),
]


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
    drops_late: bool
    moment: int
    clock: str


class GpuArray:
    """An array in a buffer of the device, ready on `stream`, or ready if that is None."""

    def __init__(self, address: int, stream: int | None) -> None:
        self.__cuda_array_interface__ = {
            "shape": FRAME.shape, "typestr": "|u1", "data": (address, False),
            "version": 3, "stream": stream, "strides": None,
        }  # fmt: skip


class Camera:
    """Fills one buffer of the device again and again, on a stream of its own."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        with device.active():
            self.stream = device.stream()
            self.there = device.allocate(FRAME.size_bytes, label="camera")
            self.source = device.allocate_host(FRAME.size_bytes, label="source")

    def array(self, number: int) -> GpuArray:
        """Write a frame; every other one is waited for, and then named without a stream."""
        with self.device.active():
            self.stream.synchronize()  # for `source`
            self.source.view(FRAME)[:] = frame(number)
            self.stream.copy(self.there, self.source, FRAME.size_bytes)
            if number % 2:
                self.stream.synchronize()
        return GpuArray(self.there.address, None if number % 2 else self.stream.handle)

    def overwrite(self) -> None:
        """Use the buffer again, and wait for nobody."""
        with self.device.active():
            self.stream.fill(self.there, 9, FRAME.size_bytes)

    def close(self) -> None:
        with self.device.active():
            self.stream.synchronize()
            for resource in (self.there, self.source, self.stream):
                resource.close()


class Drive:
    """One run of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.device: Any = HostDevice()
        if schedule.order != "host":
            self.device = SimulatedDevice(
                order=schedule.order,  # type: ignore[arg-type]
                integrated=schedule.integrated,
            )
        self.program = program_on(self.device)
        clock, self.now = CLOCKS[schedule.clock]
        self.number = 0
        self.tickets: list[tuple[Ticket[Any], int]] = []
        self.told: list[int] = []
        self.called: dict[int, list[str]] = {}
        self.raised: list[BaseException] = []
        self.heard: list[BaseException] = []
        self.interrupts = self.unknown = self.heard_before_close = 0
        self.kind: type[BaseException] | None = None
        self.closes = self.reopens = False
        self.faults: list[object] = []
        self.threads: list[threading.Thread] = []
        self.cameras: list[Camera] = []
        self.pipeline = pipeline_of(
            self.program,
            slots=schedule.slots,
            policy=schedule.policy,
            run_options=RunOptions(graph=schedule.graph),
            on_result=self.on_result,
            clock=clock,
            deadline_ms=500.0,
            on_late="drop" if schedule.drops_late else "deliver",
        )
        if schedule.refuse_run:
            self.program.fail_at(schedule.refuse_run)
        if schedule.fail_operation and schedule.order != "host":
            self.device.fail_at(schedule.fail_operation, on_device=schedule.on_device)

    # Callbacks

    def on_result(self, ticket: Ticket[Any]) -> None:
        self.told.append(ticket.sequence)
        if self.closes:
            self.pipeline.close(drain=self.schedule.drain)
        if self.reopens:
            with suppress(RunError):
                self.pipeline.reopen()
                self.faults.append("reopened on the thread that has to end first")
        self.fail()

    def fail(self) -> None:
        if self.kind is not None:
            self.raised.append(self.kind())
            raise self.raised[-1]

    def take(self, ticket: Ticket[Any], number: int) -> None:
        """Keep a ticket; every other one gets two callbacks, which may raise."""
        self.tickets.append((ticket, number))
        if number % 2:
            called = self.called[ticket.sequence] = []

            def callback(name: str) -> None:
                called.append(name)
                self.fail()

            for name in ("first", "second"):
                try:
                    ticket.add_done_callback(lambda _, name=name: callback(name))  # type: ignore[misc]
                except BaseException as error:  # it was done, and they raise here
                    while error in self.raised:
                        self.heard.append(error)
                        error = error.__context__  # type: ignore[assignment]

    # Ways to bring a frame

    def bring(self, stamp_ns: int | None = None) -> tuple[Ticket[Any], int]:
        self.number += 1
        fed = frame(self.number)
        ticket = self.pipeline.submit(fed, stamp_ns=stamp_ns)
        fed[:] = 0  # the caller may use its frame again
        return ticket, self.number

    def bring_in_place(self) -> tuple[Ticket[Any], int]:
        self.number += 1
        with self.pipeline.input() as buffer:
            buffer["frame"][:] = frame(self.number)
            return buffer.submit(stamp_ns=self.now()), self.number

    def bring_on_device(self) -> tuple[Ticket[Any], int]:
        if self.schedule.order == "host":
            return self.bring()
        if not self.cameras:
            self.cameras.append(Camera(self.device))
        camera, self.number = self.cameras[-1], self.number + 1
        array: Any = camera.array(self.number)
        try:
            return self.pipeline.submit(array), self.number
        except KeyboardInterrupt:  # whether it was copied, nobody knows
            camera = Camera(self.device)
            self.cameras.append(camera)
            raise
        finally:
            with suppress(*[CudaError] if self.schedule.fail_operation else []):
                camera.overwrite()

    # Steps

    def submit(self) -> None:
        self.take(*self.bring())

    def lend(self) -> None:
        self.take(*self.bring_in_place())

    def camera(self) -> None:
        self.take(*self.bring_on_device())

    def poison(self) -> None:
        self.tickets.append((self.pipeline.submit(np.full_like(frame(0), POISON)), -1))

    def abandon(self) -> None:
        with self.pipeline.input() as buffer:
            buffer["frame"][:] = 9

    def old(self) -> None:
        ticket, number = self.bring(self.now() - SECOND_NS)
        self.take(ticket, number)
        if not 1000 <= ticket.age_ms < 3_600_000 or not ticket.is_late:
            self.faults.append(f"a frame of a second ago is {ticket.age_ms} ms old")

    def wrong_stamp(self) -> None:
        other = time.perf_counter_ns if self.schedule.clock == "realtime" else time.time_ns
        stamps = [*WRONG_STAMPS, other()]
        with pytest.raises((TypeError, ValueError)):
            self.pipeline.submit(frame(0), stamp_ns=stamps[self.number % len(stamps)])

    def result(self) -> None:
        if self.tickets:
            self.tickets[-1][0].result(WAIT_S)

    def raises(self) -> None:
        self.kind = None if self.kind else RAISED[self.number % len(RAISED)]

    def interrupt(self) -> None:
        ways = (self.bring, self.bring_in_place, self.bring_on_device)
        got: list[tuple[Ticket[Any], int]] = []
        if self.is_interrupted(lambda: got.append(ways[self.number % 3]())):
            self.unknown += 1
        for ticket, number in got:
            self.take(ticket, number)

    def interrupt_result(self) -> None:
        self.is_interrupted(self.result)

    def interrupt_reopen(self) -> None:
        self.is_interrupted(self.pipeline.reopen)

    def reopen(self) -> None:
        self.pipeline.reopen()

    def reopen_elsewhere(self) -> None:
        in_time(self.pipeline.reopen)

    def reopen_inside(self) -> None:
        self.reopens = True

    def close_inside(self) -> None:
        self.closes = True

    def close_elsewhere(self) -> None:
        self.threads.append(threading.Thread(target=self.close, daemon=True))
        self.threads[-1].start()

    # All of it

    def is_interrupted(self, call: Callable[[], object]) -> bool:
        moment = (self.schedule.moment + 13 * self.number) % MOMENTS
        was = is_interrupted(call, moment)
        self.interrupts += was
        return was

    def close_once(self) -> None:
        self.pipeline.close(drain=self.schedule.drain)

    def close(self) -> None:
        """Close, and hear what callbacks raised."""
        while True:
            try:
                self.close_once()
            except CallbackError as error:
                self.heard.append(error)
                continue  # it tells of one at a time
            except BaseException as error:
                self.faults.append(error)
            break

    def run(self) -> None:
        for step in self.schedule.steps:
            try:
                getattr(self, step)()
            except (FrameDroppedError, FrameLostError):
                pass  # by `result`
            except ValueError:
                assert "result" in step, step  # of a frame that cannot be decoded
            except CallbackError as error:
                self.heard.append(error)
                if error.ticket is None or error.__cause__ not in self.raised:
                    self.faults.append(error)
                else:
                    self.tickets.append((error.ticket, -1 if step == "poison" else self.number))
            except CudaError:
                assert self.schedule.fail_operation
            except ClosedError:
                assert not self.pipeline.is_open  # reopening failed, or somebody closed it
            except HazardError:
                raise
            except RunError as error:
                # `reopen` runs each slot once, and tells what refused that.
                if "reopen" not in step and "failed" not in str(error):
                    raise
        self.heard_before_close = len(self.heard)
        try:
            in_time(lambda: self.is_interrupted(self.close_once))
        except CallbackError as error:
            self.heard.append(error)
        in_time(self.close)
        for thread in self.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "close() hangs"
        self.program.close()
        with suppress(*[CudaError] if self.schedule.fail_operation else []):
            for camera in self.cameras:
                camera.close()
        if self.schedule.order != "host" and self.device._dead is None:
            assert not any(self.device.live.values()), f"left behind: {self.device.live}"

    def check(self) -> None:
        """Hold against each other what happened and what was counted and told."""
        schedule, tickets, counters = self.schedule, self.tickets, self.pipeline.counters()
        assert not self.faults
        assert (counters.waiting, counters.running) == (0, 0)
        assert counters.submitted == counters.delivered + counters.dropped + counters.lost
        # Who was interrupted has no ticket; the frame may be in the pipeline all the same.
        unknown = counters.submitted - len(tickets)
        assert 0 <= unknown <= self.unknown
        sequences = [ticket.sequence for ticket, _ in tickets]
        assert sequences == sorted(set(sequences))
        if not self.unknown:
            assert sequences == list(range(len(tickets)))
        outcomes = {"delivered": 0, "dropped": 0, "lost": 0}
        for ticket, number in tickets:
            outcomes[self.outcome(ticket, number)] += 1
        counted = {name: getattr(counters, name) for name in outcomes}
        assert all(0 <= counted[name] - outcomes[name] <= unknown for name in outcomes)
        assert all(names == ["first", "second"] for names in self.called.values()), self.called
        # A user's Ctrl-C reaches the main thread alone. The last `close` is interrupted on another,
        # where one that strikes inside a callback is told as what that raised.
        last = self.heard[self.heard_before_close :]
        struck = sum(isinstance(error.__cause__, KeyboardInterrupt) for error in last)
        assert struck <= 1
        heard = len(self.heard) - struck
        assert 0 <= len(self.raised) - heard <= self.interrupts, "an error was not told"
        assert self.told == sorted(set(self.told)), "told twice or out of order"
        # Those of on_late="drop" are told of frames that came late, too.
        assert counters.delivered <= len(self.told) <= counters.delivered + counters.late
        if schedule.policy == "block" and schedule.drain and not schedule.drops_late:
            assert outcomes["dropped"] == 0

    def outcome(self, ticket: Ticket[Any], number: int) -> str:
        """Return what a frame's ticket says, after checking that it may say so."""
        assert ticket.is_done, "a frame was lost without a word"
        try:
            answer = ticket.result(timeout_s=0)
        except FrameDroppedError:
            return "dropped"
        except FrameLostError as error:
            if isinstance(error.__cause__, HazardError):
                raise error.__cause__ from error
            assert self.schedule.refuse_run or self.schedule.fail_operation, "nothing was to fail"
            return "lost"
        except ValueError:
            assert number == -1
        else:
            np.testing.assert_array_equal(answer, frame(number))
        return "delivered"


def check(schedule: Schedule) -> None:
    """Drive a pipeline through a schedule; raises what is wrong with it."""
    drive = Drive(schedule)
    drive.run()
    drive.check()
