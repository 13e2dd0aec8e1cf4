"""Ctrl-C at every moment of `submit`: the pipeline closes at once, and nothing is left behind.

CPython runs a signal's handler when a function begins, after a call and when a loop goes round, so
the test raises KeyboardInterrupt at each of these moments inside the runtime, one after another.
"""

from __future__ import annotations

import dis
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

import edgevision.runtime
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.testing import SimulatedDevice
from tests.pipeline.conftest import frame, pipeline_of, program_on

RUNTIME = edgevision.runtime.__path__[0]
CLOSED_WITHIN_S = 5.0
MOMENTS = ("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")


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
        if not code.f_code.co_filename.startswith(RUNTIME) or code.f_code.co_name == "__del__":
            return None
        code.f_trace_opcodes = True
        return self._step

    def _step(self, code: FrameType, event: str, _: Any) -> Any:
        # A second Ctrl-C may come inside what cleans up after the first; nobody can promise that.
        if event == "opcode" and self.left >= 0:
            last, now = self._last.get(code, ""), code.f_code.co_code[code.f_lasti]
            self._last[code] = dis.opname[now]
            if last.startswith(MOMENTS):
                self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return self._step


def interrupted(device: Device, after: int) -> bool:
    """Interrupt the second of two submits; returns whether it came to that."""
    pipeline = pipeline_of(program_on(device), policy="block", slots=2)
    first = pipeline.submit(frame(1))
    try:
        with Interrupt(after):
            pipeline.submit(frame(2))
    except KeyboardInterrupt:
        return True
    else:
        return False
    finally:
        start = time.monotonic()
        pipeline.close()
        assert time.monotonic() - start < CLOSED_WITHIN_S, f"interrupted at moment {after}"
        # Whoever waits for the frame before is told: its answer, or that it was lost.
        assert first.is_done, f"interrupted at moment {after}"


@pytest.mark.parametrize("make", [HostDevice, SimulatedDevice])
def test_closing_ends_whenever_submit_was_interrupted(make: type[Device]) -> None:
    after, device = 0, make()
    while interrupted(device, after):
        after += 1
    assert after > 20, "it was interrupted at many moments"
    # Other tests' pipelines are closed by now; the watchdog's thread is everybody's.
    assert "edgevision pipeline" not in {thread.name for thread in threading.enumerate()}
    if isinstance(device, SimulatedDevice):
        assert device.live == {"buffer": 0, "event": 0, "graph": 0, "stream": 0}
