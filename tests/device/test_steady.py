"""What one frame costs once everything is warm, counted: memory, copies, hand-overs, calls."""

from __future__ import annotations

import importlib.util
import statistics
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.flavours import ORT, Flavour, flavours
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.runtime.backends.program import Program, make_program
from edgevision.runtime.device.device import Device
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.testing import ScriptedProgram, SimulatedDevice

SHAPE = (1, 480, 640, 3)
FRAME_BYTES = int(np.prod(SHAPE))
FRAMES = 40


class Plain:
    def feeds(self, frame: np.ndarray) -> dict[str, object]:
        return {"frame": frame}

    def decode(self, outputs: Any, timings: Any) -> np.ndarray:
        answer: np.ndarray = outputs["echo"]
        return answer


def on_host(flavour: Flavour = ORT) -> Program:
    import onnx
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(n, TensorProto.UINT8, SHAPE) for n in ("frame", "echo")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["frame"], ["echo"])], "echo", info[:1], info[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return make_program(model.SerializeToString(), flavour, None, RunOptions(cpu_threads=1))


def scripted(device: Device) -> ScriptedProgram:
    specs = [TensorSpec(name, DType.UINT8, SHAPE) for name in ("frame", "echo")]
    return ScriptedProgram(device, specs[:1], specs[1:])


@pytest.fixture(params=[known for known in flavours() if not known.on_gpu], ids=str)
def host_program(request: pytest.FixtureRequest) -> Iterator[Program]:
    """Return a program of each runtime of the host in turn."""
    if importlib.util.find_spec(request.param.modules[0]) is None:
        pytest.skip(f"{request.param.title} is not installed")
    made = on_host(request.param)
    yield made
    made.close()


@pytest.fixture
def program(device: Device) -> Iterator[Program]:
    """Return an ONNX Runtime program on the host, and a scripted one on everything else."""
    made: Program = scripted(device) if device.capabilities.async_copies else on_host()
    yield made
    made.close()


def pipeline_of(program: Program, **options: Any) -> Pipeline[np.ndarray, np.ndarray]:
    return Pipeline(program, {}, Plain(), StreamOptions(**options), run_options=RunOptions())


def is_queued(program: Program) -> bool:
    return program.device.capabilities.async_copies


def allocated_by(frame: Callable[[], object]) -> int:
    """Return the most bytes that were held at once beyond what was held before."""
    for _ in range(5):
        frame()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(FRAMES):
            frame()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("policy", ["latest", "block", "drop_oldest"])
def test_a_pipeline_allocates_nothing_of_a_frames_size(program: Program, policy: str) -> None:
    picture = np.full(SHAPE, 7, np.uint8)
    with pipeline_of(program, policy=policy) as pipeline:
        found = allocated_by(lambda: pipeline.submit(picture).result(timeout_s=20))
    assert found < FRAME_BYTES / 10


def test_a_session_allocates_nothing_of_a_frames_size(program: Program) -> None:
    feeds = {"frame": np.full(SHAPE, 7, np.uint8)}
    with Session(program, {}) as session:
        session.warm_up()
        for run in (session.run, session.run_timed):
            assert allocated_by(lambda run=run: run(feeds)) < FRAME_BYTES / 10  # type: ignore[misc]

        def view() -> None:
            with session.run_view(feeds) as lent:
                assert lent["echo"] is not None

        assert allocated_by(view) < FRAME_BYTES / 10
        with session.input() as buffer:
            assert allocated_by(buffer.run) < FRAME_BYTES / 10


def test_every_runtime_of_the_host_works_in_place(host_program: Program) -> None:
    feeds = {"frame": np.full(SHAPE, 7, np.uint8)}
    with Session(host_program, {}) as session:
        session.warm_up()
        with session.input() as buffer:
            buffer["frame"][...] = 5
            assert allocated_by(buffer.run) < FRAME_BYTES / 10
            np.testing.assert_array_equal(buffer.run()["echo"], 5)
        assert allocated_by(lambda: session.run_view(feeds)) < FRAME_BYTES / 10


@pytest.mark.parametrize(("integrated", "expected"), [(False, 2), (True, 0)])
def test_a_frame_is_copied_to_the_device_and_back_and_no_more(
    integrated: bool, expected: int
) -> None:
    device = SimulatedDevice(order="eager", integrated=integrated)
    program = scripted(device)
    with Session(program, {}) as session:
        session.warm_up()
        before = Counter(device.copies)
        with session.input() as buffer:
            buffer["frame"][...] = 3
            for _ in range(FRAMES):
                np.testing.assert_array_equal(buffer.run()["echo"], 3)
        # The scratch memory is the program's own business.
        moved = {
            labels: count
            for labels, count in (device.copies - before).items()
            if "scratch" not in labels
        }
    assert len(moved) == expected, moved
    assert set(moved.values()) <= {FRAMES}


def test_a_lent_buffer_is_what_the_engine_reads(host_program: Program) -> None:
    with Session(host_program, {}) as session, session.input() as buffer:
        frame = buffer["frame"]
        bound = session._slots.all[0]._buffers["frame"][1]
        assert bound.host is not None
        assert np.shares_memory(frame, bound.host)


def test_a_frame_takes_two_hand_overs_and_at_most_forty_calls(program: Program) -> None:
    seen: list[tuple[int, str]] = []
    # A scripted program stands in for an engine and a simulated device for hardware, with what
    # they call; and what a binding does inside is its own.
    ignored: tuple[str, ...] = ("edgevision.testing", "cuda.")
    if isinstance(program.device, SimulatedDevice):
        ignored = (*ignored, "contextlib", "random", "threading")
    # Without graphs each queued operation is a call.
    most = 40 if program.device.capabilities.graphs or not is_queued(program) else 65

    def note(frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if threading.current_thread().name == "edgevision watchdog":
            return  # it looks after every pipeline by the clock, and belongs to no frame
        if event == "call" and not name.startswith(ignored):
            seen.append((threading.get_ident(), f"{name}.{frame.f_code.co_name}"))

    picture = np.zeros(SHAPE, np.uint8)
    calls, hops = [], []
    threading.setprofile(note)
    try:
        with pipeline_of(program, policy="block", slots=2) as pipeline:
            for _ in range(FRAMES):
                pipeline.submit(picture).result(timeout_s=20)
            # It looks after every pipeline four times a second, and no frame waits for it.
            watchdog = {t.ident for t in threading.enumerate() if t.name == "edgevision watchdog"}
            sys.setprofile(note)
            for _ in range(FRAMES):
                seen.clear()
                pipeline.submit(picture).result()
                told = [(thread, name) for thread, name in seen if thread not in watchdog]
                calls.append(len(told))
                # There to each other thread that touched it, and back to who waits.
                hops.append(1 + len({thread for thread, _ in told} - {threading.get_ident()}))
            sys.setprofile(None)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert set(hops) == {2}
    assert 10 < statistics.median(calls) <= most
