"""A plan of any TensorRT flavour, loaded and run by the module it is handed.

Full and lean TensorRT and TensorRT-RTX differ in what is around this, not in this. Only names that
10.3 to 11.4 and RTX all have are used; the contract test reads this file, so annotate what comes
from the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from edgevision.bundle.tensors import DYNAMIC, DType, TensorSpec
from edgevision.errors import ClosedError, EngineLoadError, RunError
from edgevision.runtime.backends.program import Shape
from edgevision.runtime.backends.tensorrt_log import (
    cuda_advice,
    cuda_failure,
    get_log,
    join_reasons,
)
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer

if TYPE_CHECKING:
    import tensorrt

# Entered once, `Runtime()` cannot meet another thread's logging: see `tensorrt_log`. Programs keep
# it alive; the last one frees it.
_runtimes: WeakValueDictionary[tuple[int, int], Any] = WeakValueDictionary()

MakeContext = Callable[["tensorrt.ICudaEngine"], "tensorrt.IExecutionContext"]
"""Makes an execution context in the flavour's own way."""


class TensorRTProgram:
    """See `Program`; holds the runtime and the engine.

    Args:
        trt: the flavour's module.
        plan: the engine's bytes, trusted: their hash was checked.
        device: the GPU.
        title: the flavour's name and version.
        no_graph_reason: why its executions cannot be captured; empty if they can.
        remedy: the target whose engine would fit, as `edgevision build --target` takes it.
        make_context: how contexts are made; None lets executions share working memory.
    """

    def __init__(
        self,
        trt: ModuleType,
        plan: bytes,
        device: Device,
        *,
        title: str,
        no_graph_reason: str = "",
        remedy: str = "local",
        make_context: MakeContext | None = None,
    ) -> None:
        self.device = device
        self.version = title
        self.no_graph_reason = no_graph_reason
        self._trt = trt
        self._make_context = make_context
        self.log = get_log(trt)
        with device.active():
            try:
                with self.log.calling():
                    runtime = _runtime(trt, device.ordinal)
                    engine = runtime.deserialize_cuda_engine(plan)
            except TypeError as error:  # how the binding says that the library gave no runtime
                reason = self.pop_reason()
                raise EngineLoadError(
                    f"{title} does not start: {reason} {cuda_advice(reason)} What this machine "
                    "has: edgevision doctor"
                ) from error
            if engine is None:
                reason = self.pop_reason()
                if advice := cuda_advice(reason):
                    raise EngineLoadError(
                        f"{title} cannot use the GPU: {reason} {advice} What this machine has: "
                        "edgevision doctor"
                    )
                raise EngineLoadError(
                    f"{title} refuses the plan: {reason} Plans fit one TensorRT version and one "
                    f"kind of GPU; build it here with: edgevision finish BUNDLE --target {remedy}"
                )
            self._runtime, self.engine = runtime, engine
            self.inputs, self.outputs = _tensors(trt, engine)
            self.scratch_bytes = 0 if make_context else int(engine.device_memory_size_v2)

    def execution(self, scratch: Buffer | None) -> TensorRTExecution:
        """Return a new execution; with `scratch`, its activations lie there.

        Raises:
            ClosedError: the program is closed.
            EngineLoadError: there is no memory for it.
        """
        if self.engine is None:
            raise ClosedError("the engine is closed; load its bundle again")
        with self.log.calling():
            context = self._context_for(scratch)
        if context is None:
            raise EngineLoadError(f"{self.version} makes no execution context: {self.pop_reason()}")
        return TensorRTExecution(self, context)

    def _context_for(self, scratch: Buffer | None) -> Any:
        trt = self._trt
        engine: tensorrt.ICudaEngine = self.engine
        if self._make_context is not None:
            return self._make_context(engine)
        if scratch is None:
            return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.STATIC)
        context = engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is not None:
            _share(context, scratch)
        return context

    def pop_reason(self) -> str:
        """Return TensorRT's last errors on this thread, and forget them."""
        self.log.raise_kept()
        return join_reasons(self.log.pop_errors())

    def close(self) -> None:
        """Free the engine, then its runtime."""
        with self.device.active(), self.log.calling():
            self.engine = None
            self._runtime = None


def start_failure_reason(trt: ModuleType, device: Device) -> tuple[str, str]:
    """Return why this TensorRT cannot use the GPU, and what to do; twice "" if it can."""
    log = get_log(trt)
    try:
        # What is not a plan is refused before CUDA is of any use, and is told of a CUDA that fails.
        with device.active(), log.asking(), log.calling():
            _runtime(trt, device.ordinal).deserialize_cuda_engine(b"no plan")
    except TypeError:  # how the binding says that the library gave no runtime
        reason = join_reasons(log.pop_errors())
        return reason, cuda_advice(reason)
    messages = log.pop_messages()
    return cuda_failure(messages), cuda_advice(messages)


class TensorRTExecution:
    """See `Execution`."""

    def __init__(self, program: TensorRTProgram, context: tensorrt.IExecutionContext) -> None:
        self._program = program
        self._context: tensorrt.IExecutionContext | None = context
        self._execute = context.execute_async_v3

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Set the inputs' shapes.

        Raises:
            EngineLoadError: an output's shape depends on the data.
            RunError: TensorRT refuses a shape.
        """
        context: tensorrt.IExecutionContext = self._context
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise RunError(f"TensorRT refuses shape {shape} of '{name}'. {self._pop_reason()}")
        found: dict[str, Shape | None] = {}
        for spec in self._program.outputs:
            extents = tuple(int(extent) for extent in context.get_tensor_shape(spec.name))
            if any(extent < 0 for extent in extents):
                raise EngineLoadError(
                    f"output '{spec.name}' has a shape {extents} that depends on the data, so no "
                    "buffer can be bound to it. Give the graph a fixed size and a count."
                )
            found[spec.name] = extents
        return found

    def bind(self, name: str, buffer: Buffer) -> None:
        """Let the engine read or write the buffer in place."""
        context: tensorrt.IExecutionContext = self._context
        if not context.set_tensor_address(name, buffer.address):
            raise RunError(f"TensorRT refuses the address of '{name}'. {self._pop_reason()}")

    def enqueue(self, stream: Stream) -> None:
        """Queue one run."""
        if not self._execute(stream.handle):
            raise RunError(f"TensorRT does not run: {self._pop_reason()}")

    def fetch(self, name: str) -> Array:
        """Refuse: every output has a buffer."""
        raise RunError(f"output '{name}' lies in its buffer")

    def close(self) -> None:
        """Free the context."""
        with self._program.log.calling():
            self._execute = _closed
            self._context = None

    def _pop_reason(self) -> str:
        return self._program.pop_reason()


def make_logger(trt: ModuleType) -> Any:
    """Return the one logger of a module, as TensorRT takes it."""
    return get_log(trt).logger


def _runtime(trt: ModuleType, ordinal: int) -> Any:
    """Return the module's runtime for a GPU, made while no program is loaded that uses it."""
    key = (id(trt), ordinal)
    runtime = _runtimes.get(key)
    if runtime is None:
        runtime = _runtimes[key] = trt.Runtime(make_logger(trt))
    return runtime


def _share(context: tensorrt.IExecutionContext, scratch: Buffer) -> None:
    context.set_device_memory(scratch.address, scratch.size_bytes)


def _tensors(
    trt: ModuleType, engine: tensorrt.ICudaEngine
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    dtypes = engine_dtypes(trt)
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name)
        if dtype not in dtypes:
            raise EngineLoadError(f"tensor '{name}' is {dtype}, which edgevision does not take")
        shape = tuple(DYNAMIC if e < 0 else int(e) for e in engine.get_tensor_shape(name))
        spec = TensorSpec(name, dtypes[dtype], shape)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


def engine_dtypes(trt: ModuleType) -> dict[Any, DType]:
    """Return the element types that cross a model's boundary, by TensorRT's name for them."""
    return {
        trt.DataType.BOOL: DType.BOOL,
        trt.DataType.UINT8: DType.UINT8,
        trt.DataType.INT8: DType.INT8,
        trt.DataType.INT32: DType.INT32,
        trt.DataType.INT64: DType.INT64,
        trt.DataType.HALF: DType.FLOAT16,
        trt.DataType.FLOAT: DType.FLOAT32,
    }


def _closed(handle: int) -> bool:
    raise RunError("the execution is closed")
