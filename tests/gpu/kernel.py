"""A program of one kernel, compiled by NVRTC: it adds one to every byte, for as long as it is told.

It is an engine without TensorRT, so that the runtime itself can be tested and measured on any GPU:
how long the device works is known, and so is every byte of the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import EngineLoadError, RunError
from edgevision.runtime.backends.program import Shape
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer

SOURCE = r"""
extern "C" __global__ void work(const unsigned char* source, unsigned char* target,
                                unsigned long long source_bytes, unsigned long long target_bytes,
                                unsigned long long duration_ns) {
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    unsigned long long threads = gridDim.x * (unsigned long long)blockDim.x;
    unsigned long long first = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    for (unsigned long long i = first; i < target_bytes; i += threads)
        target[i] = source[i % source_bytes] + 1;
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - begin < duration_ns);
}
"""
BLOCKS, THREADS = 32, 256
STAND_IN = "stand-in"


def answer(frame: Array, size_bytes: int) -> Array:
    """Return what the kernel makes of `frame` in `size_bytes`."""
    flat = frame.reshape(-1).view(np.uint8)
    return np.resize(flat, size_bytes) + np.uint8(1)


@functools.cache
def image(capability: str) -> bytes:
    """Return the kernel compiled for a GPU.

    Raises:
        EngineLoadError: NVRTC refuses it.
        RuntimeError: there is no NVRTC.
    """
    from cuda.bindings import nvrtc

    _, program = nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"work.cu", 0, [], [])
    option = f"--gpu-architecture=sm_{capability.replace('.', '')}".encode()
    (status,) = nvrtc.nvrtcCompileProgram(program, 1, [option])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise EngineLoadError(f"NVRTC refuses the kernel: {log.decode()}")
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    compiled = b" " * size
    nvrtc.nvrtcGetCUBIN(program, compiled)
    nvrtc.nvrtcDestroyProgram(program)
    return compiled


class KernelProgram:
    """Fulfils `Program`: `frame: uint8[size_in]` to `echo: uint8[size_out]`, each byte plus one.

    Args:
        device: a GPU, over either binding; the kernel itself is launched by cuda-bindings.
        capability: the GPU's, e.g. "9.0".
        size_in: bytes in.
        size_out: bytes out; the input is repeated or cut.
        work_us: how long the device works.
    """

    version = "kernel of the tests"
    no_graph_reason = ""
    scratch_bytes = 0

    def __init__(
        self, device: Device, capability: str, *, size_in: int, size_out: int, work_us: float
    ) -> None:
        from cuda.bindings import driver

        self.device = device
        self.inputs = (TensorSpec("frame", DType.UINT8, (size_in,)),)
        self.outputs = (TensorSpec("echo", DType.UINT8, (size_out,)),)
        self.work_ns = int(work_us * 1e3)
        self.driver = driver
        code = b"\0" if device.name == STAND_IN else image(capability)
        with device.active():
            self._module = self.ok(driver.cuModuleLoadData(code))
            self.function = self.ok(driver.cuModuleGetFunction(self._module, b"work"))

    def ok(self, result: tuple[Any, ...]) -> Any:
        """Return what a call returned."""
        if result[0] != self.driver.CUresult.CUDA_SUCCESS:
            raise RunError(f"the driver answered {result[0].name}")
        return result[1] if len(result) > 1 else None

    def execution(self, scratch: Buffer | None) -> KernelExecution:
        """Return a new execution."""
        return KernelExecution(self)

    def close(self) -> None:
        """Unload the kernel."""
        if self._module is not None:
            with self.device.active():
                self.ok(self.driver.cuModuleUnload(self._module))
            self._module = None


class KernelExecution:
    """See `Execution`."""

    def __init__(self, program: KernelProgram) -> None:
        self._program = program
        sizes = [spec.size_bytes for spec in (*program.inputs, *program.outputs)]
        self._values = np.array([0, 0, *sizes, program.work_ns], np.uint64)
        first, step = self._values.ctypes.data, self._values.itemsize
        self._arguments = np.array([first + i * step for i in range(5)], np.uint64)
        self._pointer = self._arguments.ctypes.data

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Return the output's shape, which never changes."""
        return {spec.name: spec.shape for spec in self._program.outputs}

    def bind(self, name: str, buffer: Buffer) -> None:
        """Use `buffer` for a tensor."""
        self._values[0 if name == "frame" else 1] = buffer.address

    def enqueue(self, stream: Stream) -> None:
        """Queue the kernel."""
        launch = self._program.driver.cuLaunchKernel
        grid, block = (BLOCKS, 1, 1), (THREADS, 1, 1)
        self._program.ok(
            launch(self._program.function, *grid, *block, 0, stream.handle, self._pointer, 0)
        )

    def fetch(self, name: str) -> Array:
        """Refuse: the output has a buffer."""
        raise RunError(f"output '{name}' lies in its buffer")

    def close(self) -> None:
        """Free nothing."""
