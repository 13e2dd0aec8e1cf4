"""Our way through TensorRT's API, on a fake of it over a simulated device."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.tensors import ShapeProfile
from edgevision.errors import ClosedError, CudaError, EngineLoadError, FrameError, RunError
from edgevision.runtime.backends.tensorrt_program import TensorRTProgram, start_failure_reason
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.testing import SimulatedDevice
from tests.parts.echo import EchoCodec, frame
from tests.runtime.fake_tensorrt import FakeTensorRT, plan_of

SHAPE = (1, 8, 12, 3)


@pytest.fixture(params=["lazy", "eager", 3])
def device(request: pytest.FixtureRequest) -> Iterator[SimulatedDevice]:
    made = SimulatedDevice(order=request.param)
    yield made
    gc.collect()
    assert not any(made.live.values()), f"left behind: {made.live}"


def make_program(trt: FakeTensorRT, plan: bytes | None = None) -> TensorRTProgram:
    plan = plan_of(*SHAPE) if plan is None else plan
    return TensorRTProgram(trt, plan, trt.device, title="TensorRT 10.3.0")  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "plain"])
def test_sessions_give_right_bytes(device: SimulatedDevice, graph: bool) -> None:
    trt = FakeTensorRT(device)
    with Session(make_program(trt), {}, RunOptions(slots=2, graph=graph)) as session:
        session.warm_up()
        assert ("one graph launch a frame" in session.explain()) is graph
        for number in range(8):
            echoed = session.run({"frame": frame(number)})["echo"]
            np.testing.assert_array_equal(echoed, frame(number))
    assert trt.contexts == ["STATIC", "STATIC"]


def test_slots_that_never_overlap_share_their_working_memory(device: SimulatedDevice) -> None:
    trt = FakeTensorRT(device)
    program = make_program(trt)
    options = StreamOptions(policy="latest", slots=3)
    with Pipeline(program, {}, EchoCodec(), options, run_options=RunOptions()) as pipeline:
        for number in range(8):
            answer = pipeline.submit(frame(number)).result(timeout_s=20)
            np.testing.assert_array_equal(answer, frame(number))
    assert trt.contexts == ["USER_MANAGED"] * 3
    with Pipeline(
        program, {}, EchoCodec(), StreamOptions(policy="block"), run_options=RunOptions()
    ) as pipeline:
        tickets = [pipeline.submit(frame(number)) for number in range(8)]
        for number, ticket in enumerate(tickets):
            np.testing.assert_array_equal(ticket.result(timeout_s=20), frame(number))
    assert trt.contexts[3:] == ["STATIC"] * 3
    program.close()


def test_dynamic_shapes_follow_each_feed(device: SimulatedDevice) -> None:
    program = make_program(FakeTensorRT(device), plan_of(-1, 8, 12, 3))
    profiles = {"frame": ShapeProfile((1, 8, 12, 3), (2, 8, 12, 3), (4, 8, 12, 3))}
    with Session(program, profiles) as session:
        session.warm_up()
        assert "an input has a dynamic shape" in session.explain()
        for rows in (1, 4, 2, 4):
            batch = np.concatenate([frame(rows + i) for i in range(rows)])
            np.testing.assert_array_equal(session.run({"frame": batch})["echo"], batch)
        with pytest.raises(FrameError, match="outside the profile"):
            session.run({"frame": np.zeros((5, 8, 12, 3), np.uint8)})


@pytest.mark.parametrize(
    ("plan", "refuses", "message"),
    [
        (
            b"not a plan",
            (),
            r"refuses the plan: \[runtime.cpp::readHeader.*cpp:765\)\. Plans.*build",
        ),
        (
            b"not a plan",
            ("cuda",),
            r"refuses the plan: \[runtime.cpp::readHeader.*cpp:765\)\. Plans",
        ),
        (
            plan_of(*SHAPE),
            ("cuda",),
            r"cannot use the GPU: IRuntime::[^;]*cudaError 35[^;]*\)\)\. The NVIDIA driver is "
            "missing, or older than this library's CUDA: update it. .*edgevision doctor",
        ),
        (b"", (), "refuses the plan"),
        (plan_of(*SHAPE), ("runtime",), "does not start: CUDA initialization failure"),
        (plan_of(*SHAPE), ("context",), "makes no execution context: Out of memory"),
        (plan_of(*SHAPE, dtype="FP8"), (), "tensor 'frame' is DataType.FP8, which"),
        (plan_of(*SHAPE, depends_on_data=True), (), r"a shape \(-1,\) that depends on the data"),
    ],
)
def test_what_tensorrt_refuses_is_told_in_its_own_words(
    device: SimulatedDevice, plan: bytes, refuses: tuple[str, ...], message: str
) -> None:
    with pytest.raises(EngineLoadError, match=message):
        Session(make_program(FakeTensorRT(device, *refuses), plan), {})


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        ("shape", r"refuses shape \(1, 8, 12, 3\) of 'frame'. Static dimension mismatch"),
        ("address", "refuses the address of 'frame'. it gave no reason"),
    ],
)
def test_what_a_context_refuses_is_told(
    device: SimulatedDevice, refuses: str, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        Session(make_program(FakeTensorRT(device, refuses)), {})


def test_a_refused_run_is_told_and_the_session_lives_on(device: SimulatedDevice) -> None:
    trt = FakeTensorRT(device)
    with Session(make_program(trt), {}, RunOptions(graph=False)) as session:
        trt.refuses.add("run")
        with pytest.raises(RunError, match="does not run: Cuda Runtime"):
            session.run({"frame": frame(1)})
        trt.refuses.clear()
        np.testing.assert_array_equal(session.run({"frame": frame(2)})["echo"], frame(2))


def test_a_graph_that_cannot_be_captured_is_no_silent_loss(device: SimulatedDevice) -> None:
    with Session(make_program(FakeTensorRT(device)), {}) as session:
        slot = session._slots.all[0]
        enqueue: Any = slot._enqueue

        def allocating(stream: Any) -> None:  # as lazily loaded kernels do at their first run
            device.allocate(16, label="lazily").close()
            enqueue(stream)

        slot._enqueue = allocating
        session.warm_up()
        assert "no graph: capture failed: allocate 'lazily'" in session.explain()
        np.testing.assert_array_equal(session.run({"frame": frame(4)})["echo"], frame(4))


def test_a_dead_device_is_an_error_everywhere_and_closes_quietly() -> None:
    device = SimulatedDevice(order="eager")
    session = Session(make_program(FakeTensorRT(device)), {}, RunOptions(graph=False))
    device.fail_at(1, on_device=True)
    for _ in range(2):
        with pytest.raises(CudaError, match="illegal memory access"):
            session.run({"frame": frame(1)})
    session.close()


def test_programs_of_a_module_share_its_logger_and_its_runtime(
    device: SimulatedDevice, caplog: pytest.LogCaptureFixture
) -> None:
    trt = FakeTensorRT(device)
    first, second = make_program(trt), make_program(trt)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(trt.runtimes) == 1
    first.close()
    with Session(second, {}) as session:
        np.testing.assert_array_equal(session.run({"frame": frame(2)})["echo"], frame(2))
    gc.collect()
    assert not trt.runtimes, "the last program frees it"
    with pytest.raises(ClosedError, match="the engine is closed"):
        first.execution(None)
    make_program(trt).close()


def test_errors_belong_to_the_thread_that_made_them(device: SimulatedDevice) -> None:
    trt = FakeTensorRT(device)
    program = make_program(trt)
    told: list[str] = []

    def other() -> None:
        trt.refuse("of the other thread")
        told.append(program.pop_reason())

    trt.refuse("of this one")
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert (program.pop_reason(), told) == ("of this one.", ["of the other thread."])
    assert program.pop_reason() == "it gave no reason."
    program.close()


class Raising(logging.Handler):
    """Raises at the first line that comes from TensorRT: what a user's handler may do."""

    def __init__(self, how: Callable[[], object]) -> None:
        super().__init__()
        self._how: Callable[[], object] | None = how

    def emit(self, record: logging.LogRecord) -> None:
        how, self._how = self._how, None
        if how is not None:
            how()


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def fail() -> None:
    raise SystemExit(7)


def holds_back(how: Callable[[], object], raised: type[BaseException]) -> None:
    """Load while a handler does `how` at TensorRT's first line, and see it raised afterwards."""
    trt = FakeTensorRT(SimulatedDevice())
    handler = Raising(how)
    logger = logging.getLogger("edgevision")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(raised):
            make_program(trt)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert signal.getsignal(signal.SIGINT) is before
    assert not trt.swallowed
    make_program(trt).close()


def test_what_is_raised_while_tensorrt_logs_is_raised_after_its_call() -> None:
    holds_back(fail, SystemExit)


def test_ctrl_c_while_tensorrt_logs_is_raised_after_its_call() -> None:
    # In a process of its own: a worker that runs tests is not a program that a user interrupts.
    program = f"""
import signal
from {__name__} import holds_back, interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
holds_back(interrupt, KeyboardInterrupt)
print("held back")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout == "held back\n", done.stderr


@pytest.mark.parametrize(
    ("refuses", "fault", "advice"),
    [
        ((), "", ""),
        (("cuda",), "cudaError 35: CUDA driver version is insufficient", "older than this"),
        (("runtime",), "CUDA initialization failure with error: 35.", ""),
    ],
)
def test_whether_a_tensorrt_starts_is_asked_without_a_plan_and_without_a_word(
    refuses: tuple[str, ...], fault: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    trt = FakeTensorRT(SimulatedDevice(), *refuses)
    found = start_failure_reason(trt, trt.device)  # type: ignore[arg-type]
    assert (found[0][: len(fault)], bool(found[0])) == (fault, bool(fault))
    assert advice in found[1]
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
