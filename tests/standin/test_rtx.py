"""The real TensorRT-RTX as far as it goes without NVIDIA's driver; see `rtx`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.standin.build import Unavailable, environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def said_by(function: str) -> str:
    """Run a function of `rtx` in a process of its own; one that hangs is killed and fails."""
    try:
        variables = environment(binding="cuda-bindings")
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [sys.executable, "-m", "tests.standin.rtx", function],
        env=variables, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_threads_load_beside_a_loaded_model() -> None:
    assert said_by("loads_in_two_threads") == "both ended True\n"


def test_a_second_model_is_loaded_without_a_warning() -> None:
    assert said_by("warns_of_nothing") == "loaded twice True\n"


def test_a_cuda_that_does_not_start_is_told_as_that() -> None:
    told = said_by("refuses_a_good_plan")
    assert "cannot use the GPU: IRuntime::deserializeCudaEngine" in told
    assert "nvidia-smi" in told
    assert "refuses the plan" not in told
    assert "catchCudaError" not in told


def test_what_is_no_plan_is_told_as_that() -> None:
    told = said_by("refuses_rubbish")
    assert "refuses the plan: [runtime.cpp::readHeader" in told
    assert "edgevision build BUNDLE --target rtx" in told
    assert "catchCudaError" not in told


def test_ctrl_c_while_it_logs_is_no_less_than_elsewhere() -> None:
    assert said_by("is_interrupted") == "KeyboardInterrupt 1\n"


def test_doctor_names_the_gpu_and_says_that_it_cannot_be_used() -> None:
    told = said_by("doctor")
    assert "gpu: stand-in, SM 8.7, CUDA 13.0" in told
    assert "cuda from python: cuda-bindings" in told
    assert "tensorrt_rtx on it: does not start: cudaError" in told
    assert "onnxruntime on it: runs on the CPU" in told
    assert "nvidia-smi" in told
