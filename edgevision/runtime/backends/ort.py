"""ONNX Runtime: programs from ONNX bytes, on the CPU or on a GPU through its CUDA provider.

Any machine can run it, so it is what proves a graph's accuracy and what `host-cpu` deploys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from edgevision._optional import require
from edgevision.bundle.flavours import ORT
from edgevision.bundle.onnx_bytes import refuse_external
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ClosedError, EngineLoadError, RunError
from edgevision.machine.identity import int8_dot_saturates
from edgevision.runtime.backends.program import Shape
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions

# Quantises float biases with scale input x weight, which underflows where scales are float16: it
# turned a correct INT8 + FP16 graph into noise (ONNX Runtime 1.32). Never worth the risk.
# The second one crashes the process on a float16 graph of an LSTM, then Linear, with an open batch
# (ONNX Runtime 1.32, SIGSEGV while it loads).
DISABLED_OPTIMIZERS = ["WeightBiasQuantization", "MatmulTransposeFusion"]

_DEFAULTS = RunOptions()

_DTYPES = {
    "tensor(bool)": DType.BOOL,
    "tensor(uint8)": DType.UINT8,
    "tensor(int8)": DType.INT8,
    "tensor(int32)": DType.INT32,
    "tensor(int64)": DType.INT64,
    "tensor(float16)": DType.FLOAT16,
    "tensor(float)": DType.FLOAT32,
}


# Its own format it would recognise by the first bytes, and nobody has checked what is in there.
_FORMAT = "session.load_model_format"
_AFFINITY = "session.intra_op_thread_affinities"


def session_options(ort: Any, chosen: RunOptions = _DEFAULTS) -> Any:
    """Return the options that every session of ours has, and what the user has chosen.

    Raises:
        ValueError: what was chosen is not the user's to choose, or a core is not there.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = chosen.cpu_threads
    # Two spinning pools on few cores slow each other up to fivefold; a control loop has others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if int8_dot_saturates():
        # Q and DQ are left as they are, around products in float: slower, and right. ONNX Runtime's
        # own remedy, session.x64quantprecision, does not load graphs with loops (1.32).
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if chosen.affinity:
        there = os.sched_getaffinity(0)
        if absent := sorted(set(chosen.affinity) - there):
            raise ValueError(
                f"affinity: core {absent[0]} is not one of this process's: {sorted(there)}"
            )
        # One for each thread that it starts, in numbers from 1; the caller's is the first thread.
        options.intra_op_num_threads = chosen.cpu_threads or len(chosen.affinity) + 1
        cores = ",".join(str(core + 1) for core in chosen.affinity)
        each = [cores] * (options.intra_op_num_threads - 1)
        options.add_session_config_entry(_AFFINITY, ";".join(each))
    for key, value in chosen.ort.items():
        if key in (_FORMAT, _AFFINITY):
            raise ValueError(
                f"ort: {key!r} cannot be chosen"
                + (": use RunOptions.affinity" if key == _AFFINITY else "")
            )
        try:
            options.add_session_config_entry(key, value)
        except Exception as error:  # too long; ONNX Runtime has no common error class
            raise ValueError(f"ort: {key!r:.80} is refused: {_first_line(error)}") from error
    options.add_session_config_entry(_FORMAT, "ONNX")
    return options


class OrtProgram:
    """A loaded ONNX graph: immutable, shared by threads and executions."""

    scratch_bytes = 0

    def __init__(
        self, graph: bytes, *, device: Device | None = None, options: RunOptions = _DEFAULTS
    ) -> None:
        """Load `graph`, an ONNX file's bytes without external data, for `device` or the host.

        Raises:
            EngineLoadError: ONNX Runtime refuses the graph, it has weights in another file, or
                there is no CUDA provider.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        ort = require("onnxruntime", extra="ort")
        refuse_external(graph, ORT.title)
        self._ort = ort
        self.device = device or HostDevice()
        self.version = f"ONNX Runtime {ort.__version__}"
        self.no_graph_reason = "ONNX Runtime synchronises inside a run"
        chosen = session_options(ort, options)
        self._stream: Stream | None = None
        self.session: Any = None
        providers: list[Any] = ["CPUExecutionProvider"]
        if device is not None and device.capabilities.async_copies:
            if "CUDAExecutionProvider" not in ort.get_available_providers():
                raise EngineLoadError(
                    f"ONNX Runtime {ort.__version__} has no CUDA provider. "
                    "Install it with: pip install onnxruntime-gpu"
                )
            # The provider takes one stream for good, so executions meet their own stream by events.
            with device.active():
                self._stream = device.stream()
            settings = {"user_compute_stream": str(self._stream.handle)}
            providers = [("CUDAExecutionProvider", settings)]
        try:
            self.session = ort.InferenceSession(
                graph,
                chosen,
                providers=providers,
                disabled_optimizers=DISABLED_OPTIMIZERS,
            )
            self.inputs = _specs(self.session.get_inputs())
            self.outputs = _specs(self.session.get_outputs())
        except Exception as error:  # ONNX Runtime has no common error class
            self.close()
            raise EngineLoadError(
                f"ONNX Runtime {ort.__version__} cannot load the graph: {_first_line(error)}"
            ) from error

    def execution(self, scratch: Buffer | None) -> OrtExecution | OrtCudaExecution:
        """Return a new execution; ONNX Runtime owns its working memory.

        Raises:
            ClosedError: the program is closed.
        """
        if self.session is None:
            raise ClosedError("the engine is closed; load its bundle again")
        if self._stream is None:
            return OrtExecution(self)
        return OrtCudaExecution(self, self._stream)

    def close(self) -> None:
        """Free the graph with its weights, and the provider's stream."""
        self.session = None
        if self._stream is not None:
            with self.device.active():
                self._stream.close()
            self._stream = None


def open_program(graph: bytes, device: Device | None, options: RunOptions) -> OrtProgram:
    """Load `graph` for `device`, None for the host; see `OrtProgram`."""
    return OrtProgram(graph, device=device, options=options)


class OrtExecution:
    """One binding of a program to host buffers."""

    def __init__(self, program: OrtProgram) -> None:
        self._ort = program._ort
        self._session = program.session
        self._outputs = program.outputs
        self._specs = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
        self._input_names = {spec.name for spec in program.inputs}
        self._reset()

    def _reset(self) -> None:
        self._binding: Any = self._session.io_binding()
        self._run = _bound_run(self._session, self._binding, self._ort.RunOptions())
        # An OrtValue over host memory aliases it, so both are kept alive here.
        self._values: list[Any] = []
        self._shapes: dict[str, Shape] = {}

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Start a new binding; the shape of a dynamic output is known only after a run."""
        self._reset()
        found = {s.name: None if s.is_dynamic else s.shape for s in self._outputs}
        for spec in self._outputs:
            if spec.is_dynamic:
                self._binding.bind_output(spec.name, "cpu")
        self._shapes = {**shapes, **{name: s for name, s in found.items() if s is not None}}
        return found

    def bind(self, name: str, buffer: Buffer) -> None:
        """Let the graph read or write the buffer in place."""
        array = buffer.view(self._specs[name].with_shape(self._shapes[name]))
        value = self._ort.OrtValue.ortvalue_from_numpy(array)
        self._values.append((value, array))
        if name in self._input_names:
            self._binding.bind_ortvalue_input(name, value)
        else:
            self._binding.bind_ortvalue_output(name, value)

    def enqueue(self, stream: Stream) -> None:
        """Compute the outputs; done on return."""
        try:
            self._run()
        except Exception as error:  # ONNX Runtime has no common error class
            raise RunError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def fetch(self, name: str) -> Array:
        """Return an output that ONNX Runtime allocated."""
        index = [spec.name for spec in self._outputs].index(name)
        array: Array = self._binding.get_outputs()[index].numpy().copy()
        return array

    def close(self) -> None:
        """Drop the bindings, and the graph with them."""
        self._binding, self._values, self._run = None, [], _closed
        self._session = None


class OrtCudaExecution:
    """One binding of a program to device buffers, run on the provider's own stream."""

    def __init__(self, program: OrtProgram, stream: Stream) -> None:
        self._session = program.session
        self._stream = stream
        self._specs = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
        self._outputs = program.outputs
        self._input_names = {spec.name for spec in program.inputs}
        self._before, self._after = program.device.event(), program.device.event()
        self._options = program._ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._run: Callable[[], None] = _closed
        self._binding: Any = None
        self._shapes: dict[str, Shape] = {}

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Start a new binding.

        Raises:
            EngineLoadError: an output's shape is dynamic, so no buffer can be bound to it.
        """
        self._binding = self._session.io_binding()
        self._run = _bound_run(self._session, self._binding, self._options)
        dynamic = [spec.name for spec in self._outputs if spec.is_dynamic]
        if dynamic:
            raise EngineLoadError(
                f"outputs {dynamic} have dynamic shapes, which edgevision runs by ONNX Runtime on "
                "the CPU only. Load with device='cpu', or build a TensorRT engine."
            )
        found = {spec.name: spec.shape for spec in self._outputs}
        self._shapes = {**shapes, **found}
        return found

    def bind(self, name: str, buffer: Buffer) -> None:
        """Let the graph read or write the device buffer in place."""
        dtype, shape = self._specs[name].dtype.numpy, self._shapes[name]
        bind = self._binding.bind_input if name in self._input_names else self._binding.bind_output
        bind(name, "cuda", 0, dtype, shape, buffer.address)

    def enqueue(self, stream: Stream) -> None:
        """Queue the run between the slot's earlier and later work."""
        stream.record(self._before)
        self._stream.wait(self._before)
        try:
            self._run()
        except Exception as error:  # ONNX Runtime has no common error class
            raise RunError(f"ONNX Runtime failed: {_first_line(error)}") from error
        self._stream.record(self._after)
        stream.wait(self._after)

    def fetch(self, name: str) -> Array:
        """Refuse: every output has a buffer."""
        raise RunError(f"output '{name}' lies in its buffer")

    def close(self) -> None:
        """Drop the bindings, and the graph with them."""
        self._session, self._binding, self._run = None, None, _closed
        self._before.close()
        self._after.close()


def _bound_run(session: Any, binding: Any, options: Any) -> Callable[[], None]:
    """Return what runs a binding, without what ONNX Runtime makes and asks again for each frame.

    Without run options it makes some for each run, 0.9 us of 3.3 (1.32); with them its wrapper asks
    for an entry that they do not have, by an exception of C++: 85 us. So the wrapper is passed by.
    """
    try:
        return partial(session._sess.run_with_iobinding, binding._iobinding, options)
    except AttributeError:  # the wrapped names are private, though they are as old as the wrapper
        return partial(session.run_with_iobinding, binding, options)


def _closed() -> None:
    raise RunError("the execution is closed")


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for node in nodes:
        if node.type not in _DTYPES:
            raise ValueError(f"tensor '{node.name}' has type {node.type}, which no target takes")
        shape = tuple(d if isinstance(d, int) and d > 0 else -1 for d in node.shape)
        specs.append(TensorSpec(node.name, _DTYPES[node.type], shape))
    return tuple(specs)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:500]
