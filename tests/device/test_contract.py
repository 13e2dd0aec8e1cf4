"""What every device keeps, whatever it is: memory, streams, events, graphs, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ClosedError, CudaError
from edgevision.runtime.device.device import Device, Event, Stream
from edgevision.runtime.device.memory import Buffer

SIZE = 4096
Make = Callable[..., Buffer]


@contextmanager
def stream_of(device: Device, *, priority: int = 0) -> Iterator[Stream]:
    stream = device.stream(priority=priority)
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def event_of(device: Device, *, timing: bool = False) -> Iterator[Event]:
    event = device.event(timing=timing)
    try:
        yield event
    finally:
        event.close()


@contextmanager
def buffers_of(device: Device, kinds: str) -> Iterator[list[Buffer]]:
    """Yield buffers, "h" for host and "d" for device memory."""
    with ExitStack() as stack:
        made = []
        for index, kind in enumerate(kinds):
            make: Make = device.allocate_host if kind == "h" else device.allocate
            buffer = make(SIZE, label=f"{kind}{index}")
            stack.callback(buffer.close)
            made.append(buffer)
        yield made


def host(buffer: Buffer) -> np.ndarray:
    assert buffer.host is not None
    return buffer.host


def pattern(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


def test_names_itself_and_gives_reasons(device: Device) -> None:
    assert device.name
    assert device.binding
    capabilities = device.capabilities
    for name in ("pinned", "graphs", "async_copies", "priorities"):
        assert getattr(capabilities, name) or capabilities.reasons[name]
    assert capabilities.mapped or not capabilities.integrated


def test_bytes_go_there_and_back(device: Device) -> None:
    with stream_of(device) as stream, buffers_of(device, "hddh") as (source, a, b, target):
        host(source)[:] = pattern(0)
        stream.copy(a, source, SIZE)
        stream.copy(b, a, SIZE)
        stream.copy(target, b, SIZE)
        stream.synchronize()
        np.testing.assert_array_equal(host(target), pattern(0))


def test_a_copy_takes_the_first_bytes_alone(device: Device) -> None:
    with stream_of(device) as stream, buffers_of(device, "hdh") as (source, there, target):
        host(source)[:] = pattern(1)
        host(target)[:] = 9
        stream.fill(there, 7, SIZE)
        stream.copy(there, source, 100)
        stream.copy(target, there, 200)
        stream.synchronize()
        np.testing.assert_array_equal(host(target)[:100], pattern(1)[:100])
        assert set(host(target)[100:200].tolist()) == {7}
        assert set(host(target)[200:].tolist()) == {9}


def test_fill_sets_bytes(device: Device) -> None:
    with stream_of(device) as stream, buffers_of(device, "dh") as (there, target):
        stream.fill(there, 171, SIZE)
        stream.copy(target, there, SIZE)
        stream.synchronize()
        assert set(host(target).tolist()) == {171}


def test_work_on_one_stream_runs_in_order(device: Device) -> None:
    with stream_of(device) as stream, buffers_of(device, "dh") as (there, target):
        for value in range(20):
            stream.fill(there, value, SIZE)
        stream.copy(target, there, SIZE)
        stream.fill(there, 99, SIZE)
        stream.synchronize()
        assert set(host(target).tolist()) == {19}


def test_an_event_orders_two_streams(device: Device) -> None:
    with (
        stream_of(device) as first,
        stream_of(device) as second,
        event_of(device) as filled,
        buffers_of(device, "dh") as (there, target),
    ):
        for value in range(10):
            first.fill(there, value, SIZE)
            first.record(filled)
            second.wait(filled)
            second.copy(target, there, SIZE)
            second.record(filled)
            first.wait(filled)
        second.synchronize()
        assert set(host(target).tolist()) == {9}


def test_an_event_tells_the_host(device: Device) -> None:
    with (
        stream_of(device) as stream,
        event_of(device) as done,
        buffers_of(device, "hdh") as (source, there, target),
    ):
        assert done.is_done()
        for seed in range(5):
            host(source)[:] = pattern(seed)
            stream.copy(there, source, SIZE)
            stream.copy(target, there, SIZE)
            stream.record(done)
            done.synchronize()
            assert done.is_done()
            np.testing.assert_array_equal(host(target), pattern(seed))


def test_polling_an_event_ends(device: Device) -> None:
    with (
        stream_of(device) as stream,
        event_of(device) as done,
        buffers_of(device, "d") as (there,),
    ):
        for _ in range(30):
            stream.fill(there, 1, SIZE)
        stream.record(done)
        polls = 0
        while not done.is_done():
            polls += 1
            assert polls < 1_000_000
        done.synchronize()


def test_times_between_events_are_not_negative(device: Device) -> None:
    with (
        stream_of(device) as stream,
        event_of(device, timing=True) as begin,
        event_of(device, timing=True) as end,
        buffers_of(device, "d") as (there,),
    ):
        stream.record(begin)
        stream.fill(there, 1, SIZE)
        stream.record(end)
        end.synchronize()
        begin.synchronize()
        assert device.intervals_ms([begin, end])[0] >= 0


def test_a_graph_replays_with_fresh_input(graphs: Device) -> None:
    with stream_of(graphs) as stream, buffers_of(graphs, "hdh") as (source, there, target):
        with stream.capture() as capture:
            stream.copy(there, source, SIZE)
            stream.copy(target, there, SIZE)
        for seed in range(4):
            host(source)[:] = pattern(seed)
            capture.graph.launch(stream)
            stream.synchronize()
            np.testing.assert_array_equal(host(target), pattern(seed))
        capture.graph.close()
        capture.graph.close()


def test_capturing_runs_nothing(graphs: Device) -> None:
    with stream_of(graphs) as stream, buffers_of(graphs, "h") as (target,):
        host(target)[:] = 5
        with stream.capture() as capture:
            stream.fill(target, 6, SIZE)
        stream.synchronize()
        assert set(host(target).tolist()) == {5}
        capture.graph.launch(stream)
        stream.synchronize()
        assert set(host(target).tolist()) == {6}
        capture.graph.close()


def test_events_in_a_graph_are_recorded_at_each_launch(graphs: Device) -> None:
    with (
        stream_of(graphs) as stream,
        event_of(graphs, timing=True) as begin,
        event_of(graphs, timing=True) as end,
        event_of(graphs) as done,
        buffers_of(graphs, "d") as (there,),
    ):
        with stream.capture() as capture:
            stream.record(begin)
            stream.fill(there, 1, SIZE)
            stream.record(end)
        for _ in range(3):
            capture.graph.launch(stream)
            stream.record(done)
            done.synchronize()
            assert graphs.intervals_ms([begin, end])[0] >= 0
        capture.graph.close()


def test_what_must_not_be_captured_is_refused_and_the_stream_lives_on(graphs: Device) -> None:
    with stream_of(graphs) as stream, buffers_of(graphs, "dh") as (there, target):
        with pytest.raises(CudaError), stream.capture():
            stream.fill(there, 1, SIZE)
            stream.synchronize()
        stream.fill(there, 3, SIZE)
        stream.copy(target, there, SIZE)
        stream.synchronize()
        assert set(host(target).tolist()) == {3}


def test_an_exception_inside_a_capture_leaves_the_stream_usable(graphs: Device) -> None:
    with stream_of(graphs) as stream, buffers_of(graphs, "h") as (target,):
        with pytest.raises(KeyError), stream.capture():
            stream.fill(target, 1, SIZE)
            raise KeyError
        stream.fill(target, 2, SIZE)
        stream.synchronize()
        assert set(host(target).tolist()) == {2}


def test_no_capture_without_graphs(device: Device) -> None:
    if device.capabilities.graphs:
        pytest.skip("has graphs")
    with stream_of(device) as stream, pytest.raises(CudaError), stream.capture():
        pass


def test_mapped_memory_needs_no_copies(device: Device) -> None:
    if not device.capabilities.mapped:
        pytest.skip("no mapped memory")
    with stream_of(device) as stream, buffers_of(device, "hh") as (source, target):
        assert source.address
        host(source)[:] = pattern(3)
        stream.copy(target, source, SIZE)
        stream.synchronize()
        np.testing.assert_array_equal(host(target), pattern(3))


def test_views_are_tensors(device: Device) -> None:
    with buffers_of(device, "h") as (buffer,):
        view = buffer.view(TensorSpec("x", DType.FLOAT32, (4, 8)))
        view[:] = 1.5
        assert view.shape == (4, 8)
        assert set(host(buffer)[: 4 * 32].view(np.float32).tolist()) == {1.5}
        with pytest.raises(ValueError, match=r"has .* bytes, .* needs"):
            buffer.view(TensorSpec("x", DType.FLOAT32, (SIZE,)))
    with pytest.raises(ClosedError, match="buffer 'h0' is closed"):
        buffer.view(TensorSpec("x", DType.FLOAT32, (4, 8)))


def test_everything_closes_twice(device: Device) -> None:
    stream, event, buffer = device.stream(), device.event(), device.allocate(64, label="x")
    pinned = device.allocate_host(64, label="y")
    for resource in (buffer, pinned, event, stream):
        resource.close()
        resource.close()


def test_memory_comes_back(device: Device) -> None:
    if not device.capabilities.async_copies:
        pytest.skip("the host's free memory is everybody's")
    before, total = device.memory()
    buffer = device.allocate(1 << 20, label="a megabyte")
    within, _ = device.memory()
    buffer.close()
    after, _ = device.memory()
    assert before - within >= 1 << 20
    assert after == before <= total


def test_too_much_memory_is_an_error_that_says_how_much_is_free(device: Device) -> None:
    if not device.capabilities.async_copies:
        pytest.skip("the host overcommits")
    with pytest.raises(CudaError, match=r"no \d+ bytes for 'everything', \d+ are free"):
        device.allocate(1 << 48, label="everything")


def test_priorities_are_clamped(device: Device) -> None:
    for priority in (-100, 0, 100):
        with stream_of(device, priority=priority) as stream:
            stream.synchronize()


def test_any_thread_may_use_it(device: Device) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            with (
                device.active(),
                stream_of(device) as stream,
                buffers_of(device, "hdh") as (source, there, target),
            ):
                for i in range(20):
                    host(source)[:] = pattern(seed * 100 + i)
                    stream.copy(there, source, SIZE)
                    stream.copy(target, there, SIZE)
                    stream.synchronize()
                    if not np.array_equal(host(target), pattern(seed * 100 + i)):
                        wrong.append(seed)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_that_is_not_active_is_told_so(device: Device) -> None:
    if not device.capabilities.async_copies:
        pytest.skip("the host needs no context")
    raised: list[Exception] = []

    def work() -> None:
        try:
            device.stream()
        except CudaError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_being_active_nests(device: Device) -> None:
    with device.active(), device.active(), stream_of(device) as stream:
        stream.synchronize()
    with stream_of(device) as stream:
        stream.synchronize()


def test_a_thousand_rounds_leave_nothing(device: Device, rounds: int) -> None:
    free_bytes, _ = device.memory()
    for _ in range(rounds):
        with (
            stream_of(device) as stream,
            event_of(device) as event,
            buffers_of(device, "hd") as (source, there),
        ):
            stream.copy(there, source, SIZE)
            stream.record(event)
            event.synchronize()
    if device.capabilities.async_copies:
        assert device.memory()[0] == free_bytes
