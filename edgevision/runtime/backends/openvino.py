"""OpenVINO: programs from ONNX bytes on x86 and Arm CPUs, computed in what the graph says."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from edgevision._optional import require
from edgevision.bundle.flavours import OPENVINO
from edgevision.bundle.onnx_bytes import refuse_external
from edgevision.bundle.tensors import DYNAMIC, DType, TensorSpec
from edgevision.errors import ClosedError, EngineLoadError, RunError
from edgevision.machine.identity import int8_dot_saturates
from edgevision.runtime.backends.program import Shape
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions

_DTYPES = {
    "boolean": DType.BOOL,
    "u8": DType.UINT8,
    "i8": DType.INT8,
    "i32": DType.INT32,
    "i64": DType.INT64,
    "f16": DType.FLOAT16,
    "f32": DType.FLOAT32,
}
_PACKAGE = "openvino"
_CONVERTER = "openvino.tools.ovc"
# How OpenVINO calls the node that an output ends in.
_END = "/sink_port_0"


def import_openvino() -> ModuleType:
    """Import OpenVINO without its converter, whose import reports to its makers by network.

    The report asks nobody first; see `openvino.tools.ovc` and `openvino_telemetry`. The converter
    stays importable for programs that want it.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    if _PACKAGE in sys.modules or _CONVERTER in sys.modules:
        return require(_PACKAGE, extra=OPENVINO.extra)
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # how Python marks it as missing
    try:
        return require(_PACKAGE, extra=OPENVINO.extra)
    finally:
        del sys.modules[_CONVERTER]


def open_program(graph: bytes, device: Device | None, options: RunOptions) -> OpenVinoProgram:
    """Load `graph`, an ONNX file's bytes without external data, on the host.

    Raises:
        EngineLoadError: OpenVINO refuses the graph, or a GPU is asked for.
        MissingDependencyError: OpenVINO is not installed.
        ValueError: the options are ONNX Runtime's.
    """
    if device is not None and device.capabilities.async_copies:
        raise EngineLoadError("OpenVINO runs on the CPU here. Load with device='cpu'.")
    if options.affinity or options.ort:
        raise ValueError(
            "RunOptions.affinity and .ort are ONNX Runtime's, and this artifact runs by OpenVINO. "
            "Leave them out, or load with target='host-cpu'"
        )
    return OpenVinoProgram(graph, cpu_threads=options.cpu_threads)


class OpenVinoProgram:
    """A compiled ONNX graph: immutable, shared by threads and executions."""

    scratch_bytes = 0

    def __init__(self, graph: bytes, *, cpu_threads: int = 0) -> None:
        """Compile `graph`; `cpu_threads` 0 takes every core.

        Raises:
            EngineLoadError: OpenVINO refuses the graph, or it has weights in another file.
            MissingDependencyError: OpenVINO is not installed.
        """
        self.openvino: Any = import_openvino()
        refuse_external(graph, OPENVINO.title)
        # Its own version, not the build that it names as well: "2026.4.1-22982-...".
        number = self.openvino.__version__.partition("-")[0]
        self.device: Device = HostDevice()
        self.version = f"{OPENVINO.title} {number}"
        self.no_graph_reason = "OpenVINO computes on the caller's time"
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Else it takes bfloat16 where the CPU has it, and FP32 is not what was proven.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if cpu_threads:
            settings["INFERENCE_NUM_THREADS"] = cpu_threads
        try:
            core = self.openvino.Core()
            model = core.read_model(graph)
            if int8_dot_saturates():
                _widen_weights(model)
            # Compiled, a tensor goes by the names of all that was folded into it as well.
            self.inputs = _specs(model.inputs)
            self.outputs = _specs(model.outputs)
            self.compiled: Any = core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO has no error class of its own
            raise EngineLoadError(
                f"{self.version} cannot load the graph: {_reason(error)}"
            ) from error

    def execution(self, scratch: Buffer | None) -> OpenVinoExecution:
        """Return a new execution; OpenVINO owns its working memory.

        Raises:
            ClosedError: the program is closed.
        """
        if self.compiled is None:
            raise ClosedError("the engine is closed; load its bundle again")
        return OpenVinoExecution(self)

    def close(self) -> None:
        """Free the graph with its weights, once its last execution is closed."""
        self.compiled = None


class OpenVinoExecution:
    """One infer request of a program over host buffers."""

    def __init__(self, program: OpenVinoProgram) -> None:
        self._openvino = program.openvino
        self._request = program.compiled.create_infer_request()
        self._infer = self._request.infer
        self._outputs = program.outputs
        self._specs = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
        self._input_at = {spec.name: at for at, spec in enumerate(program.inputs)}
        self._output_at = {spec.name: at for at, spec in enumerate(program.outputs)}
        self._shapes: dict[str, Shape] = {}

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Note the inputs' shapes; the shape of a dynamic output is known only after a run."""
        found = {s.name: None if s.is_dynamic else s.shape for s in self._outputs}
        self._shapes = {**shapes, **{name: s for name, s in found.items() if s is not None}}
        return found

    def bind(self, name: str, buffer: Buffer) -> None:
        """Let the graph read or write the buffer in place."""
        array = buffer.view(self._specs[name].with_shape(self._shapes[name]))
        tensor = self._openvino.Tensor(array, shared_memory=True)
        if name in self._input_at:
            self._request.set_input_tensor(self._input_at[name], tensor)
        else:
            self._request.set_output_tensor(self._output_at[name], tensor)

    def enqueue(self, stream: Stream) -> None:
        """Compute the outputs; done on return."""
        try:
            self._infer(share_outputs=True)  # else it copies each one
        except Exception as error:  # OpenVINO has no error class of its own
            raise RunError(f"OpenVINO failed: {_reason(error)}") from error

    def fetch(self, name: str) -> Array:
        """Return an output that OpenVINO allocated."""
        array: Array = self._request.get_output_tensor(self._output_at[name]).data.copy()
        return array

    def close(self) -> None:
        """Drop the request."""
        self._request, self._infer = None, _closed


def _widen_weights(model: Any) -> None:
    """Store INT8 weights as the floats that they stand for, so that products are computed in float.

    Slower, and right: where 8-bit products saturate, unet-camvid named 12 to 19 % of the pixels
    otherwise in place of 3 to 6 % (OpenVINO 2026.4, held to AVX2).
    """
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)


def _closed(*, share_outputs: bool) -> None:
    raise RunError("the execution is closed")


def _specs(ports: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for port in ports:
        name = port.node.get_friendly_name().removesuffix(_END)
        dtype = port.get_element_type().to_string()
        if dtype not in _DTYPES:
            raise ValueError(f"tensor '{name}' has type {dtype}, which no target takes")
        extents = port.get_partial_shape()
        shape = tuple(e.get_length() if e.is_static else DYNAMIC for e in extents)
        specs.append(TensorSpec(name, _DTYPES[dtype], shape))
    return tuple(specs)


def _reason(error: Exception) -> str:
    """Return on one line what is told, but for the lines that name OpenVINO's own files."""
    lines = [line.strip() for line in str(error).splitlines()]
    payload = [line for line in lines if line and ".cpp:" not in line]
    return " ".join(payload)[:500] or type(error).__name__
