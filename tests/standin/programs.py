"""Programs on the stand-in driver that hold with either binding."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from tests.standin import control
from tests.standin.bindings import Calls
from tests.standin.mistakes import frame, rig

SIZE = 1000


def round_trip(cuda: Calls) -> None:
    """Two streams, an event between them, bytes back as they were."""
    with rig(cuda) as at:
        second, start = cuda.device(at.source.nbytes), cuda.event()
        for index in range(5):
            at.source[:] = frame(index)
            cuda.record(start, at.upload)
            cuda.upload(at.buffer, at.source, at.upload)
            cuda.copy(second, at.buffer, at.source.nbytes, at.upload)
            cuda.record(at.filled, at.upload)
            cuda.wait(at.download, at.filled)
            cuda.download(at.target, second, at.download)
            cuda.synchronize(at.download)
            at.check(at.target, index)
            assert cuda.elapsed_ms(start, at.filled) >= 0
        cuda.free_device(second)
    assert control.live() == {"context": 1}


def pageable_memory_is_done_with(cuda: Calls) -> None:
    with rig(cuda) as at:
        source, target = frame(0), np.zeros_like(frame(0))
        cuda.upload(at.buffer, source, at.upload)
        source[:] = 0
        cuda.download(target, at.buffer, at.upload)
        at.check(target, 0)


def synchronous_copies(cuda: Calls) -> None:
    with rig(cuda) as at:
        source, target = frame(0), np.zeros_like(frame(0))
        cuda.upload_now(at.buffer, source)
        source[:] = 0
        cuda.download_now(target, at.buffer)
        at.check(target, 0)


def polling_gets_on(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.download(at.target, at.buffer, at.upload)
        cuda.record(at.filled, at.upload)
        for _ in range(20):
            if cuda.is_done(at.filled):
                break
        assert cuda.is_done(at.filled)
        at.check(at.target, 0)


def stalled_queues_hold(cuda: Calls) -> None:
    with rig(cuda) as at:
        control.stall(True)
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.download(at.target, at.buffer, at.upload)
        cuda.record(at.filled, at.upload)
        assert not any(cuda.is_done(at.filled) for _ in range(100))
        assert not np.array_equal(at.target, frame(0))
        control.stall(False)
        cuda.synchronize_event(at.filled)
        at.check(at.target, 0)


def a_planted_failure_arrives(cuda: Calls) -> None:
    control.fail("cuEventCreate", 46, nth=2)
    cuda.event()
    with pytest.raises(cuda.error, match=r"(?i)device.unavailable"):
        cuda.event()
    cuda.event()
    assert control.calls("cuEventCreate") == 3
    cuda.destroy()
    control.reset_counts()
    assert control.calls("cuEventCreate") == control.calls() == 0
    with pytest.raises(ValueError, match="no such function"):
        control.fail("cuEventKreate", 2)


def a_fault_fails_all_that_follows(cuda: Calls) -> None:
    kept, stream = cuda.device(SIZE), cuda.stream()
    control.fail("cuStreamSynchronize", 700)
    for _ in range(2):
        with pytest.raises(cuda.error, match=r"(?i)illegal.address"):
            cuda.synchronize(stream)
    with pytest.raises(cuda.error, match=r"(?i)illegal.address"):
        cuda.device(SIZE)
    with pytest.raises(cuda.error, match=r"(?i)illegal.address"):
        cuda.upload_now(kept, frame(0))


def a_new_thread_has_no_context(cuda: Calls) -> None:
    raised: list[str] = []

    def allocate() -> None:
        try:
            cuda.device(SIZE)
        except cuda.error as error:
            raised.append(str(error).lower().replace("_", " "))

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert "invalid context" in raised[0] or "invalid device context" in raised[0]


def the_host_reads_a_device_address(cuda: Calls) -> None:
    print(ctypes.string_at(cuda.device(SIZE), 1))


def too_much(cuda: Calls) -> None:
    kept = cuda.device(1 << 29)
    with pytest.raises(cuda.error, match=r"(?i)out.of.memory"):
        cuda.device((1 << 29) + 1)
    cuda.free_device(kept)


def past_the_end(cuda: Calls) -> None:
    with rig(cuda) as at:
        beyond = at.buffer + 1
        for address in (beyond, at.buffer - 1, at.buffer + 1000):
            with pytest.raises(cuda.error, match=r"(?i)invalid.(value|argument)"):
                cuda.upload(address, at.source, at.upload)


def after_its_release(cuda: Calls) -> None:
    with rig(cuda) as at:
        gone = cuda.device(SIZE)
        cuda.free_device(gone)
        new = cuda.device(SIZE)
        assert new != gone
        cuda.free_device(new)
        with pytest.raises(cuda.error, match=r"(?i)invalid.(value|argument)"):
            cuda.upload(gone, at.source, at.upload)


def a_leak(cuda: Calls) -> None:
    cuda.device(SIZE)
    cuda.stream()
