"""The CUDA path on a real GPU: answers, graphs, pipelines, threads, leaks, torch beside it.

`make gpu-check` runs it, then the benchmark. On a machine without a GPU the same file runs on the
stand-in driver, see tests/standin.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgevision.errors import EdgeVisionError, FrameDroppedError
from edgevision.machine.gpu import compute_capability
from edgevision.runtime.device.cuda.device import CudaDevice
from edgevision.runtime.device.memory import Array
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.slots.slots import Slots
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.tasks.timings import Timings
from tests.gpu.conftest import MODULES, MakeProgram, require_binding
from tests.gpu.kernel import STAND_IN, KernelProgram, answer

pytestmark = pytest.mark.gpu

DEVICE_TESTS = Path(__file__).parents[1] / "device"
SUITES = ["test_contract.py", "test_runtime.py", "test_steady.py", "test_words.py"]
MOST_MOVED_BYTES = 8 << 20
TORCH_MISSING = "torch with CUDA is not installed"


class Echo:
    """Frames are arrays; the answer is the kernel's."""

    def feeds(self, frame: Array) -> Mapping[str, object]:
        return {"frame": frame}

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> Array:
        return outputs["echo"]


def frame(number: int, size_bytes: int = 4096) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, size_bytes, np.uint8)


def opened(program: KernelProgram, **options: object) -> Session:
    session = Session(program, {}, RunOptions(**options))  # type: ignore[arg-type]
    session.warm_up()
    return session


@pytest.mark.timeout(600)
@pytest.mark.parametrize("binding", MODULES)
def test_the_device_suites_pass(binding: str) -> None:
    require_binding(binding)
    if os.environ.get("STANDIN_ORDER"):
        pytest.skip("tests/device runs them on the stand-in driver")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES],
        env={**os.environ, "EDGEVISION_TEST_BINDINGS": binding, "PYTEST_ADDOPTS": ""},
        cwd=DEVICE_TESTS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 40


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "plain"])
@pytest.mark.parametrize(("size_in", "size_out"), [(4096, 4096), (1 << 20, 100), (999, 70_001)])
def test_the_answer_is_right(
    program: MakeProgram, size_in: int, size_out: int, graph: bool
) -> None:
    with opened(program(size_in, size_out), graph=graph) as session:
        for number in range(20):
            sent = frame(number, size_in)
            np.testing.assert_array_equal(
                session.run({"frame": sent})["echo"], answer(sent, size_out)
            )


def test_a_kernel_is_captured_into_one_graph(gpu: CudaDevice, program: MakeProgram) -> None:
    with opened(program()) as session:
        told = session.explain()
    if gpu.capabilities.graphs:
        assert "one graph launch a frame" in told
    else:
        assert gpu.capabilities.reasons["graphs"] in told


def test_device_times_are_the_kernels(gpu: CudaDevice, program: MakeProgram) -> None:
    with opened(program(work_us=3000)) as session:
        _, times = session.run_timed({"frame": frame(1)})
    assert times.compute_ms >= 0
    if gpu.name != STAND_IN:  # whose kernels take no time
        assert 3.0 <= times.compute_ms < 30.0


@pytest.mark.parametrize(("policy", "slots"), [("block", 1), ("block", 3), ("drop_oldest", 3)])
@pytest.mark.parametrize("work_us", [0.0, 200.0])
def test_a_pipeline_answers_every_frame_with_its_own(
    program: MakeProgram, policy: str, slots: int, work_us: float
) -> None:
    made = program(work_us=work_us)
    options = StreamOptions(policy=policy, slots=slots)  # type: ignore[arg-type]
    with Pipeline(made, {}, Echo(), options, run_options=RunOptions()) as pipeline:
        tickets = [(number, pipeline.submit(frame(number))) for number in range(200)]
        answered = 0
        for number, ticket in tickets:
            try:
                found = ticket.result(timeout_s=20)
            except FrameDroppedError:
                assert policy == "drop_oldest"
                continue
            np.testing.assert_array_equal(found, answer(frame(number), 4096))
            answered += 1
    assert answered == 200 if policy == "block" else answered > 0


def test_threads_share_one_program(program: MakeProgram) -> None:
    wrong: list[int] = []
    with opened(program(work_us=20.0), slots=3) as session:

        def hammer(seed: int) -> None:
            for i in range(100):
                sent = frame(seed * 1000 + i)
                if not np.array_equal(session.run({"frame": sent})["echo"], answer(sent, 4096)):
                    wrong.append(seed)

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_kernel_reads_and_writes_mapped_host_memory(
    gpu: CudaDevice, program: MakeProgram
) -> None:
    if not gpu.capabilities.mapped:
        pytest.skip("the GPU maps no host memory")
    execution = program().execution(None)
    stream = gpu.stream()
    buffers = [gpu.allocate_host(4096, label=label) for label in ("frame", "echo")]
    try:
        source, target = (buffer.host for buffer in buffers)
        assert source is not None
        assert target is not None
        for name, buffer in zip(("frame", "echo"), buffers, strict=True):
            execution.bind(name, buffer)
        for number in range(5):
            source[:] = frame(number)
            execution.enqueue(stream)
            stream.synchronize()
            np.testing.assert_array_equal(target, answer(frame(number), 4096))
    finally:
        execution.close()
        for buffer in buffers:
            buffer.close()
        stream.close()


def test_a_thousand_rounds_leave_nothing(gpu: CudaDevice, program: MakeProgram) -> None:
    made = program()

    def round_trip(number: int) -> None:
        slots = Slots(made, {}, RunOptions(), count=2, warm_up=True)
        for slot in slots.all:
            slot.fill({"frame": frame(number)})
            slot.run()
        slots.close()

    for number in range(20):  # the driver keeps some memory of its own from the first rounds on
        round_trip(number)
    gc.collect()
    before, _ = gpu.memory()
    for number in range(1000):
        round_trip(number)
    gc.collect()
    assert before - gpu.memory()[0] < MOST_MOVED_BYTES


def test_torch_shares_the_primary_context(gpu: CudaDevice, program: MakeProgram) -> None:
    torch = pytest.importorskip("torch", reason=TORCH_MISSING)
    if gpu.name == STAND_IN or not torch.cuda.is_available():
        pytest.skip(TORCH_MISSING)
    ones = torch.ones(1000, device="cuda")
    made = program(1 << 20, 1 << 20, work_us=100.0)
    with opened(made) as session:
        for number in range(20):
            sent = frame(number, 1 << 20)
            # Made on torch's stream just before: only its order keeps this from being a race.
            tensor = torch.from_numpy(sent).cuda(non_blocking=True).clone()
            np.testing.assert_array_equal(
                session.run({"frame": tensor})["echo"], answer(sent, 1 << 20)
            )
    assert float(ones.sum()) == 1000.0
    assert float(torch.ones(10, device="cuda").sum()) == 10.0


def test_onnx_runtime_runs_on_our_buffers_and_stream(gpu: CudaDevice) -> None:
    ort = pytest.importorskip("onnxruntime")
    if gpu.name == STAND_IN or "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    from benchmarks.graphs import busy_frame
    from edgevision.runtime.backends.ort import OrtProgram

    graph = busy_frame(24, 32, 2)
    sent = frame(3, 24 * 32 * 3).reshape(1, 24, 32, 3)
    with (
        Session(OrtProgram(graph), {}) as host,
        Session(OrtProgram(graph, device=gpu), {}) as on_gpu,
    ):
        on_gpu.warm_up()
        wanted = host.run({"x": sent})["y"]
        np.testing.assert_array_equal(on_gpu.run({"x": sent})["y"], wanted)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_runs_or_is_refused_in_our_own_words(
    gpu: CudaDevice, flavour: str, tmp_path: Path
) -> None:
    trt = pytest.importorskip(flavour)
    if gpu.name == STAND_IN:
        pytest.skip("the stand-in driver runs no engines")
    from benchmarks.graphs import busy_frame
    from edgevision.bundle.targets import get_target
    from edgevision.engines.builder import build_engine
    from edgevision.engines.request import BuildRequest
    from edgevision.runtime.backends.ort import OrtProgram
    from edgevision.runtime.backends.program import make_program

    graph = tmp_path / "model.onnx"
    graph.write_bytes(busy_frame(24, 32, 2))
    target = get_target("local" if flavour == "tensorrt" else "rtx")
    try:
        result = build_engine(BuildRequest(graph, target, tmp_path / "engine.plan"))
        program = make_program(result.path.read_bytes(), target.flavour, gpu, RunOptions())
    except EdgeVisionError as error:
        pytest.skip(f"{flavour} {trt.__version__} on SM {compute_capability()}: {error}")
    sent = frame(3, 24 * 32 * 3).reshape(1, 24, 32, 3)
    with Session(OrtProgram(graph.read_bytes()), {}) as host, Session(program, {}) as on_gpu:
        on_gpu.warm_up()
        wanted = host.run({"x": sent})["y"]
        assert np.mean(on_gpu.run({"x": sent})["y"] != wanted) < 0.01


def test_compute_sanitizer_finds_nothing(gpu: CudaDevice) -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None or gpu.name == STAND_IN or not gpu.binding.startswith("cuda-bindings"):
        pytest.skip("no compute-sanitizer")
    done = subprocess.run(
        [tool, "--error-exitcode=9", "--leak-check=full", sys.executable, "-m", "tests.gpu.small"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this GPU here")
    assert done.returncode == 0, done.stdout[-4000:]
