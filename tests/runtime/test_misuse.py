"""Wrong uses: each raises its own error that says what to do, and none ends the interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevision.errors import (
    ClosedError,
    EdgeVisionError,
    FrameError,
    HazardError,
    RunError,
    StaleViewError,
)
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.testing import SimulatedDevice
from tests.parts.echo import FRAME, frame, pipeline_of, program_on

FEEDS = {"frame": frame(1)}


def on_host() -> Session:
    return Session(program_on(HostDevice()), {}, RunOptions())


def on_device() -> Session:
    session = Session(program_on(SimulatedDevice()), {}, RunOptions())
    session.warm_up()
    return session


def runs_a_closed_session() -> None:
    session = on_host()
    session.close()
    session.run(FEEDS)


def submits_to_a_closed_pipeline() -> None:
    pipeline = pipeline_of(program_on(HostDevice()))
    pipeline.close()
    pipeline.submit(frame(1))


def reads_a_view_after_the_next_frame() -> None:
    with on_device() as session:
        with session.run_view(FEEDS) as view:
            pass
        session.run(FEEDS)
        view["echo"]


def reads_a_view_without_its_block() -> None:
    with on_device() as session:
        session.run_view(FEEDS)["echo"]


def reads_a_view_after_close() -> None:
    with on_device() as session, session.run_view(FEEDS) as view:
        pass
    view["echo"]


def feeds_the_wrong_dtype() -> None:
    with on_host() as session:
        session.run({"frame": frame(1).astype(np.float32)})


def feeds_the_wrong_shape() -> None:
    with on_host() as session:
        session.run({"frame": frame(1)[0]})


def feeds_an_unknown_input() -> None:
    with on_host() as session:
        session.run({"image": frame(1)})


class OnGpu:
    """An array of another library on a GPU."""

    def __init__(self, **changes: object) -> None:
        shape: tuple[int, ...] = FRAME.shape
        interface = {"shape": shape, "typestr": "|u1", "data": (4096, False), "version": 3}
        self.__cuda_array_interface__ = {**interface, "stream": 1, **changes}


def feeds_a_gpu_array_to_the_host() -> None:
    with on_host() as session:
        session.run({"frame": OnGpu()})


def feeds_a_gpu_array_of_an_old_protocol() -> None:
    with on_device() as session:
        session.run({"frame": OnGpu(version=1)})


class NeedsDetach:
    """A torch tensor that requires a gradient, as far as DLPack sees it."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **_: object) -> object:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")


def feeds_a_tensor_with_a_gradient() -> None:
    with on_host() as session:
        session.run({"frame": NeedsDetach()})


def feeds_a_masked_array() -> None:
    with on_host() as session:
        session.run({"frame": np.ma.masked_array(frame(1), mask=True)})


def feeds_a_memoryview() -> None:
    with on_host() as session:
        session.run({"frame": memoryview(frame(1))})


def feeds_a_gpu_array_of_an_unknown_stream() -> None:
    with on_device() as session:
        session.run({"frame": OnGpu(stream=77)})


def reads_pinned_memory_before_the_device_is_done() -> None:
    device = SimulatedDevice()
    with device.active():
        host = device.allocate_host(4, label="answer")
        stream = device.stream()
        stream.fill(host, 1, 4)
        assert host.host is not None
        host.host[0]


def uses_a_lent_buffer_after_its_block() -> None:
    with on_host() as session:
        with session.input() as buffer:
            pass
        buffer["frame"][:] = 0


def submits_a_lent_buffer_twice() -> None:
    with pipeline_of(program_on(HostDevice())) as pipeline, pipeline.input() as buffer:
        buffer.submit()
        buffer.submit()


def closes_what_it_holds() -> None:
    with on_host() as session, session.input():
        session.close()


def reopens_what_has_not_failed() -> None:
    with pipeline_of(program_on(HostDevice())) as pipeline:
        pipeline.reopen()


def runs_in_a_forked_child() -> None:
    in_child(lambda session, pipeline: session.run(FEEDS))


def submits_in_a_forked_child() -> None:
    in_child(lambda session, pipeline: pipeline.submit(frame(1)))


def in_child(use: Callable[[Session, Any], object]) -> None:
    """Fork with both open; raise here what the child raised."""
    session, pipeline = on_host(), pipeline_of(program_on(HostDevice()))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            use(session, pipeline)
        except EdgeVisionError as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        message = told.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    # The parent's own go on.
    np.testing.assert_array_equal(session.run(FEEDS)["echo"], frame(1))
    np.testing.assert_array_equal(pipeline.submit(frame(2)).result(timeout_s=20), frame(2))
    session.close()
    pipeline.close()
    kind, _, text = message.partition(": ")
    raise {"ClosedError": ClosedError}[kind](text)


WRONG = [
    (runs_a_closed_session, ClosedError, "the session is closed. It was opened at .*py"),
    (submits_to_a_closed_pipeline, ClosedError, "the pipeline is closed. It was opened at .*py"),
    (reads_a_view_after_the_next_frame, StaleViewError, "take copies with `run`"),
    (reads_a_view_without_its_block, StaleViewError, "with session.run_view"),
    (reads_a_view_after_close, StaleViewError, "was freed"),
    (feeds_the_wrong_dtype, FrameError, r"got float32\[1, 8, 12, 3\], expected .*uint8.*Convert"),
    (feeds_the_wrong_shape, FrameError, r"got uint8\[8, 12, 3\], expected .*\[1, 8, 12, 3\]"),
    (feeds_an_unknown_input, FrameError, r"got \['image'\], this model takes \['frame'\]"),
    (feeds_a_gpu_array_to_the_host, FrameError, "this model runs on the CPU. Copy it"),
    (feeds_a_gpu_array_of_an_old_protocol, FrameError, "version 1, expected 2 or 3"),
    (feeds_a_tensor_with_a_gradient, FrameError, r"require gradient.*Give tensor.detach\(\)"),
    (feeds_a_masked_array, FrameError, r"Give array.filled\(value\) instead"),
    (feeds_a_memoryview, FrameError, r"got memoryview, expected .*Try numpy.asarray\(it\)"),
    (
        feeds_a_gpu_array_of_an_unknown_stream,
        FrameError,
        "'frame': the stream 0x4d .* no stream 77",
    ),
    (reads_pinned_memory_before_the_device_is_done, HazardError, "read by the host at .*py"),
    (uses_a_lent_buffer_after_its_block, ClosedError, "Take a new one for each frame"),
    (submits_a_lent_buffer_twice, ClosedError, "after it was submitted"),
    (closes_what_it_holds, RunError, "Leave the block first"),
    (reopens_what_has_not_failed, RunError, "this one has not"),
    (runs_in_a_forked_child, ClosedError, r"do not survive fork\(\)"),
    (submits_in_a_forked_child, ClosedError, r"do not survive fork\(\)"),
]


# Forking with threads is what Python 3.12 and later warn of, and what is tested here.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("use", "error", "message"), WRONG, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_wrong_use_says_what_to_do(
    use: Callable[[], None], error: type[EdgeVisionError], message: str
) -> None:
    with pytest.raises(error) as raised:
        use()
    assert re.search(message, str(raised.value)), raised.value
    assert threading.active_count() < 20


async def nobody_awaits(ticket: object) -> None: ...


@pytest.mark.parametrize("on_result", [nobody_awaits, "print"])
def test_what_a_pipeline_cannot_call_is_refused(on_result: object) -> None:
    with pytest.raises(TypeError, match=r"on_result: got .*, expected a"):
        pipeline_of(program_on(HostDevice()), on_result=on_result)


def test_a_program_may_end_without_closing_anything() -> None:
    """Daemon threads wait inside, a slot is lent, and a frame is on its way."""
    script = (
        "from tests.runtime.test_misuse import *\n"
        "session, device = on_host(), SimulatedDevice()\n"
        "pipeline = pipeline_of(program_on(device), stall_ms=300)\n"  # its end waits for that
        "device.stall()\n"
        "ticket = pipeline.submit(frame(1))\n"
        "lent = session.input(); buffer = lent.__enter__()\n"
        "print('end')\n"
    )
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
        )
        assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr
