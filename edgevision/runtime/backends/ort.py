"""ONNX Runtime on the CPU: programs from ONNX bytes, executions over buffers bound once.

Any machine can run it, so it is what proves a graph's accuracy and what `host-cpu` deploys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.errors import EngineLoadError, RunError
from edgevision.tensors import DType, TensorSpec

Array = npt.NDArray[np.generic]

# Quantises float biases with scale input x weight, which underflows where scales are float16: it
# turned a correct INT8 + FP16 graph into noise (ONNX Runtime 1.32). Never worth the risk.
_DISABLED_OPTIMIZERS = ["WeightBiasQuantization"]

_DTYPES = {
    "tensor(bool)": DType.BOOL,
    "tensor(uint8)": DType.UINT8,
    "tensor(int8)": DType.INT8,
    "tensor(int32)": DType.INT32,
    "tensor(int64)": DType.INT64,
    "tensor(float16)": DType.FLOAT16,
    "tensor(float)": DType.FLOAT32,
}


class OrtProgram:
    """A loaded ONNX graph: immutable, shared by threads and executions."""

    def __init__(self, graph: bytes) -> None:
        """Load `graph`, an ONNX file's bytes without external data.

        Raises:
            EngineLoadError: ONNX Runtime refuses the graph.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        ort = require("onnxruntime", extra="ort")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Two spinning pools on few cores slow each other up to fivefold; a control loop has others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_DISABLED_OPTIMIZERS,
            )
            self.inputs = _specs(self._session.get_inputs())
            self.outputs = _specs(self._session.get_outputs())
        except Exception as error:  # ONNX Runtime has no common error class
            raise EngineLoadError(
                f"ONNX Runtime {ort.__version__} cannot load the graph: {_first_line(error)}"
            ) from error
        self.version: str = ort.__version__

    def execution(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]
    ) -> OrtExecution:
        """Bind host arrays; an output given as None is allocated by ONNX Runtime at each run.

        The arrays stay the caller's and must outlive the execution.
        """
        return OrtExecution(self._session, inputs, outputs)


class OrtExecution:
    """One binding of a program to host arrays; not for two threads at once."""

    def __init__(
        self, session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]
    ) -> None:
        ort = require("onnxruntime", extra="ort")
        self._session = session
        self._binding = session.io_binding()
        # An OrtValue over a numpy array aliases it, so both are kept alive here.
        self._values = []
        for name, array in inputs.items():
            value = ort.OrtValue.ortvalue_from_numpy(array)
            self._values.append((value, array))
            self._binding.bind_ortvalue_input(name, value)
        for name, out in outputs.items():
            if out is None:
                self._binding.bind_output(name, "cpu")
            else:
                value = ort.OrtValue.ortvalue_from_numpy(out)
                self._values.append((value, out))
                self._binding.bind_ortvalue_output(name, value)

    def run(self) -> None:
        """Compute the outputs from what the input arrays hold now."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime has no common error class
            raise RunError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def fetch(self) -> list[Array]:
        """Return every output in order; those allocated by ONNX Runtime are fresh arrays."""
        return list(self._binding.copy_outputs_to_cpu())


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
