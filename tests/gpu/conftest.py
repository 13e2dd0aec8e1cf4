"""The GPU of this machine through each installed binding; skipped, and counted, without one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import pytest

from edgevision.machine.gpu import compute_capability
from edgevision.runtime.device.cuda.device import CudaDevice, cuda_device
from tests.gpu.kernel import KernelProgram

MODULES = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}
MakeProgram = Callable[..., KernelProgram]


def require_binding(name: str) -> None:
    if compute_capability() is None:
        pytest.skip("no NVIDIA GPU")
    parent = MODULES[name].partition(".")[0]
    if importlib.util.find_spec(parent) is None:
        pytest.skip(f"{name} is not installed")


@pytest.fixture(params=MODULES)
def gpu(request: pytest.FixtureRequest) -> Iterator[CudaDevice]:
    """Return the GPU over each binding, active on this thread."""
    require_binding(request.param)
    device = cuda_device(binding=request.param)
    with device.active():
        yield device


@pytest.fixture
def program(gpu: CudaDevice) -> Iterator[MakeProgram]:
    """Return a function that makes kernel programs; they are closed in the end."""
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("the kernel is launched by cuda-bindings, which is not installed")
    capability = compute_capability()
    assert capability is not None
    made: list[KernelProgram] = []

    def make(size_in: int = 4096, size_out: int = 4096, work_us: float = 5.0) -> KernelProgram:
        made.append(
            KernelProgram(gpu, capability, size_in=size_in, size_out=size_out, work_us=work_us)
        )
        return made[-1]

    yield make
    for each in made:
        each.close()
