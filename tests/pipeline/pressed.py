"""Works in a tight loop while Ctrl-C is pressed: python -m tests.pipeline.pressed KIND TIMES.

The signals are real, and come at any moment of a call. It ends with 0 if after each of them the
next calls were right, and if all closed in the end.
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, pipeline_of, program_on

WAIT_S = 20.0
HANGS_AFTER_S = 60.0
is_armed = False


def handle(number: int, _: object) -> None:
    """Raise once each time that it is armed: not while the last one is dealt with."""
    global is_armed
    if is_armed:
        is_armed = False
        raise KeyboardInterrupt


def press(main: int) -> None:
    draw = random.Random(1)
    while True:
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(draw.random() * 4e-4)


def use(session: Session, pipeline: Any) -> None:
    """Make each call once, and look at what it gives."""
    feeds = {"frame": frame(1)}
    answers = [session.run(feeds)["echo"], session.run_timed(feeds)[0]["echo"]]
    with session.run_view(feeds) as view:
        answers.append(view["echo"].copy())
    with session.input() as buffer:
        buffer["frame"][:] = frame(1)
        answers.append(buffer.run()["echo"].copy())
    answers.append(pipeline.submit(frame(1)).result(WAIT_S))
    with pipeline.input() as buffer:
        buffer["frame"][:] = frame(1)
        ticket = buffer.submit()
    answers.append(ticket.result(WAIT_S))
    assert pipeline.latest() is not None
    for answer in answers:
        np.testing.assert_array_equal(answer, frame(1))


def until_it_comes(call: Callable[[], object]) -> None:
    """Call again and again until a Ctrl-C ends that."""
    global is_armed
    try:
        while True:
            # Each time: Python drops what is raised in the callback of a weak reference.
            is_armed = True
            call()
    except KeyboardInterrupt:
        return


def main(device: Device, times: int) -> None:
    faulthandler.dump_traceback_later(HANGS_AFTER_S + times / 10, exit=True)
    signal.signal(signal.SIGINT, handle)
    threading.Thread(target=press, args=(threading.get_ident(),), daemon=True).start()
    opened = []
    with (
        Session(program_on(device), {}, RunOptions()) as session,
        pipeline_of(program_on(device), policy="block", slots=2) as pipeline,
    ):
        for number in range(times):
            until_it_comes(lambda: use(session, pipeline))
            if number % 10 == 9:
                use(session, pipeline)
                opened.append(pipeline_of(program_on(device), policy="latest"))
                opened[-1].submit(frame(2))
                until_it_comes(opened[-1].close)
                opened[-1].close()
    for each in (pipeline, *opened):
        counters = each.counters()
        assert counters.submitted == counters.delivered + counters.dropped
    if isinstance(device, SimulatedDevice):
        assert not any(device.live.values()), device.live
    names = [thread.name for thread in threading.enumerate()]
    assert "edgevision pipeline" not in names, names


if __name__ == "__main__":
    main({"host": HostDevice, "simulated": SimulatedDevice}[sys.argv[1]](), int(sys.argv[2]))
