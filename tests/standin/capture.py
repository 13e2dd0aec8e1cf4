"""Programs on capture and graphs, which cuda-bindings alone has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.standin import control
from tests.standin.bindings import CodeError, CudaBindings, PyCuda
from tests.standin.mistakes import Rig, frame, rig

GLOBAL, THREAD_LOCAL, RELAXED = range(3)


def _begin(cuda: CudaBindings, stream: int, mode: int = THREAD_LOCAL) -> None:
    cuda.ok(cuda.driver.cuStreamBeginCapture(stream, cuda.driver.CUstreamCaptureMode(mode)))


def _end(cuda: CudaBindings, stream: int) -> Any:
    return cuda.ok(cuda.driver.cuStreamEndCapture(stream))


def _capture_fork_and_join(cuda: CudaBindings, at: Rig, joined: int) -> Any:
    _begin(cuda, at.upload)
    cuda.upload(at.buffer, at.source, at.upload)
    cuda.record(at.filled, at.upload)
    cuda.wait(at.download, at.filled)
    cuda.download(at.target, at.buffer, at.download)
    cuda.record(joined, at.download)
    cuda.wait(at.upload, joined)
    return _end(cuda, at.upload)


def _close(cuda: CudaBindings, graph: Any, executable: Any) -> None:
    cuda.ok(cuda.driver.cuGraphExecDestroy(executable))
    cuda.ok(cuda.driver.cuGraphDestroy(graph))


def replay(cuda: CudaBindings) -> None:
    driver = cuda.driver
    with rig(cuda) as at:
        graph = _capture_fork_and_join(cuda, at, cuda.event())
        assert cuda.ok(driver.cuGraphGetNodes(graph))[-1] == 2
        executable = cuda.ok(driver.cuGraphInstantiate(graph, 0))
        cuda.ok(driver.cuGraphUpload(executable, at.upload))
        for index in range(3):
            at.source[:] = frame(index)
            cuda.ok(driver.cuGraphLaunch(executable, at.upload))
            cuda.synchronize(at.upload)
            at.check(at.target, index)
        _close(cuda, graph, executable)


def a_captured_stream_that_never_waits(cuda: CudaBindings) -> None:
    """Fork and join, and yet the reader is not ordered after the writer."""
    driver = cuda.driver
    with rig(cuda) as at:
        joined = cuda.event()
        _begin(cuda, at.upload)
        cuda.record(at.filled, at.upload)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.wait(at.download, at.filled)
        cuda.download(at.target, at.buffer, at.download)
        cuda.record(joined, at.download)
        cuda.wait(at.upload, joined)
        graph = _end(cuda, at.upload)
        executable = cuda.ok(driver.cuGraphInstantiate(graph, 0))
        at.source[:] = frame(0)
        cuda.ok(driver.cuGraphLaunch(executable, at.upload))
        cuda.synchronize(at.upload)
        _close(cuda, graph, executable)
        at.check(at.target, 0)


def pycuda_streams_are_captured(pycuda: PyCuda) -> None:
    cuda = CudaBindings()
    with rig(pycuda) as at:
        _begin(cuda, at.upload)
        pycuda.upload(at.buffer, at.source, at.upload)
        pycuda.download(at.target, at.buffer, at.upload)
        graph = _end(cuda, at.upload)
        executable = cuda.ok(cuda.driver.cuGraphInstantiate(graph, 0))
        for index in range(3):
            at.source[:] = frame(index)
            cuda.ok(cuda.driver.cuGraphLaunch(executable, at.upload))
            pycuda.synchronize(at.upload)
            at.check(at.target, index)
        _close(cuda, graph, executable)
    cuda.ok(cuda.driver.cuDevicePrimaryCtxRelease(0))


def events_of_a_replay(cuda: CudaBindings) -> None:
    """Nodes that record events time each replay."""
    driver = cuda.driver
    external = driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
    with rig(cuda) as at:
        start, stop = cuda.event(), cuda.event()
        with pytest.raises(CodeError, match="INVALID_VALUE"):
            cuda.ok(driver.cuEventRecordWithFlags(start, at.upload, external))
        _begin(cuda, at.upload)
        cuda.ok(driver.cuEventRecordWithFlags(start, at.upload, external))
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.ok(driver.cuEventRecordWithFlags(stop, at.upload, external))
        graph = _end(cuda, at.upload)
        executable = cuda.ok(driver.cuGraphInstantiate(graph, 0))
        with pytest.raises(CodeError, match="INVALID_HANDLE"):
            cuda.elapsed_ms(start, stop)
        for _ in range(3):
            cuda.ok(driver.cuGraphLaunch(executable, at.upload))
            cuda.synchronize_event(stop)
            assert cuda.elapsed_ms(start, stop) >= 0
        control.stall(True)
        cuda.ok(driver.cuGraphLaunch(executable, at.upload))
        assert not cuda.is_done(stop)
        with pytest.raises(CodeError, match="NOT_READY"):
            cuda.elapsed_ms(start, stop)
        control.stall(False)
        _close(cuda, graph, executable)


def _is_refused(
    cuda: CudaBindings, at: Rig, call: Callable[[], object], name: str, mode: int = THREAD_LOCAL
) -> None:
    """The call fails with that code and takes the capture with it."""
    _begin(cuda, at.upload, mode)
    cuda.upload(at.buffer, at.source, at.upload)
    cuda.record(at.filled, at.upload)
    with pytest.raises(CodeError, match=name):
        call()
    with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
        cuda.upload(at.buffer, at.source, at.upload)
    with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
        _end(cuda, at.upload)
    assert control.live().get("graph", 0) == 0


def forbidden_calls(cuda: CudaBindings) -> None:
    unsupported = "STREAM_CAPTURE_UNSUPPORTED"
    with rig(cuda) as at:
        other = cuda.event()
        cuda.record(other, at.download)
        for call, name in (
            (lambda: cuda.synchronize(at.upload), unsupported),
            (lambda: cuda.ok(cuda.driver.cuStreamQuery(at.upload)), unsupported),
            (lambda: cuda.synchronize_event(at.filled), "CAPTURED_EVENT"),
            (lambda: cuda.is_done(at.filled), "CAPTURED_EVENT"),
            (lambda: cuda.device(1), unsupported),
            (lambda: cuda.pinned(1), unsupported),
            (lambda: cuda.upload_now(at.buffer, at.source), unsupported),
            (lambda: cuda.ok(cuda.driver.cuCtxSynchronize()), unsupported),
            (lambda: cuda.wait(at.upload, other), "STREAM_CAPTURE_ISOLATION"),
        ):
            for mode in (GLOBAL, THREAD_LOCAL):
                _is_refused(cuda, at, call, name, mode)
        _begin(cuda, at.upload, RELAXED)
        cuda.free_device(cuda.device(1))
        cuda.ok(cuda.driver.cuGraphDestroy(_end(cuda, at.upload)))


def captures_that_do_not_end(cuda: CudaBindings) -> None:
    driver = cuda.driver
    with rig(cuda) as at:
        _begin(cuda, at.upload)
        cuda.record(at.filled, at.upload)
        cuda.wait(at.download, at.filled)
        cuda.upload(at.buffer, at.source, at.download)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_UNJOINED"):
            _end(cuda, at.upload)
        _begin(cuda, at.upload)
        cuda.record(at.filled, at.upload)
        cuda.wait(at.download, at.filled)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_UNMATCHED"):
            _end(cuda, at.download)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
            _end(cuda, at.upload)
        _begin(cuda, at.upload)
        _begin(cuda, at.download)
        cuda.record(at.filled, at.upload)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_MERGE"):
            cuda.wait(at.download, at.filled)
        for stream in (at.upload, at.download):
            with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
                _end(cuda, stream)
        blocking = cuda.ok(driver.cuStreamCreate(0))
        _begin(cuda, blocking)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_IMPLICIT"):
            cuda.upload(at.buffer, at.source, 0)
        with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
            _end(cuda, blocking)
        cuda.ok(driver.cuStreamDestroy(blocking))


def captures_and_other_threads(cuda: CudaBindings) -> None:
    def elsewhere(call: Callable[[], object]) -> str:
        said = ["fine"]

        def target() -> None:
            cuda.ok(cuda.driver.cuCtxSetCurrent(cuda.context))
            try:
                call()
            except CodeError as error:
                said[0] = str(error)

        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        return said[0]

    with rig(cuda) as at:
        _begin(cuda, at.upload, THREAD_LOCAL)
        assert elsewhere(lambda: cuda.free_device(cuda.device(1))) == "fine"
        assert elsewhere(lambda: _end(cuda, at.upload)).endswith("STREAM_CAPTURE_WRONG_THREAD")
        cuda.ok(cuda.driver.cuGraphDestroy(_end(cuda, at.upload)))
        _begin(cuda, at.upload, GLOBAL)
        assert elsewhere(lambda: cuda.device(1)).endswith("STREAM_CAPTURE_UNSUPPORTED")
        with pytest.raises(CodeError, match="STREAM_CAPTURE_INVALIDATED"):
            _end(cuda, at.upload)


def a_replay_after_the_release(cuda: CudaBindings) -> None:
    """A graph keeps addresses, not memory: the replay is a fault that nothing survives."""
    with rig(cuda) as at:
        buffer = cuda.device(at.source.nbytes)
        _begin(cuda, at.upload)
        cuda.upload(buffer, at.source, at.upload)
        graph = _end(cuda, at.upload)
        executable = cuda.ok(cuda.driver.cuGraphInstantiate(graph, 0))
        _close(cuda, graph, executable)
        with pytest.raises(CodeError, match="INVALID_HANDLE"):
            cuda.ok(cuda.driver.cuGraphLaunch(executable, at.upload))
        _begin(cuda, at.upload)
        cuda.upload(buffer, at.source, at.upload)
        executable = cuda.ok(cuda.driver.cuGraphInstantiate(_end(cuda, at.upload), 0))
        cuda.free_device(buffer)
        with pytest.raises(CodeError, match="ILLEGAL_ADDRESS"):
            cuda.ok(cuda.driver.cuGraphLaunch(executable, at.upload))
            cuda.synchronize(at.upload)
