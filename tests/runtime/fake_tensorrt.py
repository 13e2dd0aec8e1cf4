"""TensorRT's Python API as far as our backend calls it, run on a simulated device.

A plan is a line of JSON that names tensors; running it copies each input through working memory to
the output of the same place, as queued work on the stream whose handle it is given. What NVIDIA's
own module has by these names is the contract tests' business; here it is our control flow.

How it logs and refuses was seen on TensorRT-RTX 1.7.1: a second logger is ignored with a warning as
long as anything of the first one lives, exceptions of `log` are swallowed, and a CUDA that fails is
told when a plan is deserialised, with a line of noise behind every other reason.
"""

from __future__ import annotations

import json
import weakref
from enum import Enum
from typing import Any

import numpy as np

from edgevision.runtime.device.memory import Buffer
from edgevision.testing import SimulatedDevice

__version__ = "10.3.0"


class DataType(Enum):
    BOOL, UINT8, INT8, INT32, INT64, HALF, FLOAT, FP8 = range(8)


class TensorIOMode(Enum):
    INPUT, OUTPUT = range(2)


class ExecutionContextAllocationStrategy(Enum):
    STATIC, USER_MANAGED = range(2)


class CudaGraphStrategy(Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass


NO_CUDA = "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"
NOISE = f"[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In it {NO_CUDA})"
DIFFERS = (
    "The logger passed into createInferRuntime differs from one already registered for an existing "
    "builder, runtime, or refitter. So the current new logger is ignored."
)


class FakeTensorRT:
    """The module; each object says what it was asked, and refuses what `refuses` names.

    Attributes:
        swallowed: what `log` raised, which no caller ever saw.
        runtimes: those that are alive.
    """

    __version__ = __version__
    DataType = DataType
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    CudaGraphStrategy = CudaGraphStrategy
    ILogger = ILogger

    def __init__(self, device: SimulatedDevice, *refuses: str) -> None:
        self.device = device
        self.refuses = set(refuses)
        self.contexts: list[str] = []
        self.runtime_caches: list[RuntimeCache] = []
        self.graph_strategy: CudaGraphStrategy | None = None
        self.runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
        self.swallowed: list[BaseException] = []
        self._logger: Any = None

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802 - TensorRT's name
        if not self.runtimes:
            self._logger = logger
        elif logger is not self._logger:
            self.say("WARNING", DIFFERS)
        if "runtime" in self.refuses:  # full TensorRT; TensorRT-RTX always gives one
            self.say("ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        runtime = Runtime(self)
        self.runtimes.add(runtime)
        return runtime

    def say(self, severity: str, *messages: str) -> None:
        for message in messages:
            try:
                self._logger.log(ILogger.Severity[severity], message)
            except BaseException as error:  # the binding prints it and goes on
                self.swallowed.append(error)

    def refuse(self, *messages: str) -> None:
        self.say("ERROR", *messages, *([NOISE] if "cuda" in self.refuses else []))


class Runtime:
    def __init__(self, module: FakeTensorRT) -> None:
        self.module = module

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        self.module.say("INFO", "Loaded engine size: 0 MiB")
        try:
            tensors = json.loads(plan)
        except ValueError:
            self.module.say("WARNING", "a warning is no reason")
            self.module.refuse(
                "[runtime.cpp::readHeader::765] Error Code 2: Internal Error (Assertion bufferSize "
                ">= minBufferSize failed.  In readHeader at runtime.cpp:765)"
            )
            return None
        if "cuda" in self.module.refuses:
            self.module.say("VERBOSE", f"Skipping the engine compute capability check: {NO_CUDA}")
            self.module.refuse(
                "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream "
                f"at cudaResources.cpp:25 {NO_CUDA})"
            )
            return None
        return Engine(self, tensors)


class Engine:
    def __init__(self, runtime: Runtime, tensors: list[dict[str, Any]]) -> None:
        self.runtime, self.tensors = runtime, {t["name"]: t for t in tensors}
        self.num_io_tensors = len(tensors)
        self.device_memory_size_v2 = 4096

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name]["dtype"]]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.tensors[name]["mode"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name]["shape"])

    def create_execution_context(self, how: Any) -> Context | None:
        module = self.runtime.module
        if "context" in module.refuses:
            module.say("INTERNAL_ERROR", "Out of memory")
            return None
        module.contexts.append(how.name if isinstance(how, Enum) else "by config")
        return Context(self, owns=how is not ExecutionContextAllocationStrategy.USER_MANAGED)

    def create_runtime_config(self) -> RuntimeConfig | None:
        return None if "config" in self.runtime.module.refuses else RuntimeConfig(self)


class RuntimeConfig:
    def __init__(self, engine: Engine) -> None:
        self.module = engine.runtime.module

    def create_runtime_cache(self) -> RuntimeCache:
        cache = RuntimeCache(self.module)
        self.module.runtime_caches.append(cache)
        return cache

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        return "runtime cache" not in self.module.refuses

    @property
    def cuda_graph_strategy(self) -> CudaGraphStrategy | None:
        return self.module.graph_strategy

    @cuda_graph_strategy.setter
    def cuda_graph_strategy(self, strategy: CudaGraphStrategy) -> None:
        if "strategy" not in self.module.refuses:
            self.module.graph_strategy = strategy


class RuntimeCache:
    """Kernels that were found, or are compiled now."""

    def __init__(self, module: FakeTensorRT) -> None:
        self.module = module
        self.found = b""

    def deserialize(self, data: bytes) -> bool:
        if "cache" in self.module.refuses:
            return False
        self.found = data
        return True

    def serialize(self) -> memoryview | None:
        if "serialize" in self.module.refuses:
            self.module.refuse("no room for the cache")
            return None
        if "serialize, raising" in self.module.refuses:
            raise RuntimeError("a native error")
        return memoryview(self.found or b"compiled kernels")


class Context:
    def __init__(self, engine: Engine, *, owns: bool) -> None:
        self.engine, self.module = engine, engine.runtime.module
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scratch: Buffer | None = None
        self.owns = owns
        if owns:
            self.scratch = self.module.device.allocate(4096, label="activations")

    def __del__(self) -> None:
        if self.owns and self.scratch is not None:
            with self.module.device.active():
                self.scratch.close()

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        self.scratch = self._at(address, size_bytes)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        promised = self.engine.get_tensor_shape(name)
        fits = all(p in (-1, s) for p, s in zip(promised, shape, strict=True))
        if not fits or "shape" in self.module.refuses:
            self.module.refuse("Static dimension mismatch")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.engine.tensors[name].get("depends_on_data"):
            return (-1,)
        rows = next(iter(self.shapes.values()))[0]
        return tuple(rows if e == -1 else e for e in self.engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, address: int) -> bool:
        if "address" in self.module.refuses or address % 256:
            return False
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if "run" in self.module.refuses:
            self.module.refuse("Cuda Runtime (an error)")
            return False
        stream = self.module.device.foreign_stream(stream_handle)
        names = {mode: self._names(mode) for mode in TensorIOMode}
        for source, target in zip(*names.values(), strict=True):
            size_bytes = int(np.prod(self.shapes[source]))
            assert self.scratch is not None
            stream.copy(self.scratch, self._at(self.addresses[source], size_bytes), size_bytes)
            stream.copy(self._at(self.addresses[target], size_bytes), self.scratch, size_bytes)
        return True

    def _names(self, mode: TensorIOMode) -> list[str]:
        return [name for name in self.engine.tensors if self.engine.get_tensor_mode(name) is mode]

    def _at(self, address: int, size_bytes: int) -> Buffer:
        return Buffer.borrow(
            self, address=address, host=None, size_bytes=size_bytes, label="the engine's tensor"
        )


def plan_of(*shape: int, dtype: str = "UINT8", **output: Any) -> bytes:
    """Return a plan that echoes `frame` as `echo`."""
    tensor = {"dtype": dtype, "shape": shape}
    frame, echo = {**tensor, "mode": "INPUT"}, {**tensor, "mode": "OUTPUT", **output}
    return json.dumps([{"name": "frame", **frame}, {"name": "echo", **echo}]).encode()
