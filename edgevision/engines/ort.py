"""The builder for CPUs: ONNX Runtime takes the graph itself, or its own optimised form of it.

The optimised form holds layouts and fused kernels of this CPU and this ONNX Runtime; it loads
faster, and is bound to both as a plan is to its GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.bundle.flavours import ORT
from edgevision.bundle.onnx_bytes import refuse_external
from edgevision.bundle.tensors import TensorSpec
from edgevision.engines.layer_precision import layers_from_profile
from edgevision.engines.portable import PortableBuilder
from edgevision.engines.profiles import check_profiles
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.errors import BuildError, EngineLoadError
from edgevision.progress import Progress
from edgevision.runtime.backends.ort import DISABLED_OPTIMIZERS, OrtProgram, session_options


class OrtBuilder(PortableBuilder):
    """Passes the graph on to where any CPU shall run it, and optimises it for this one."""

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: ONNX Runtime refuses the graph, or a profile does not fit it.
        """
        if not request.target.portable:
            return self._optimised(request, progress)
        return super().build(request, progress)

    def _optimised(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write ONNX Runtime's optimised model, and count what it computes in which type."""
        ort = require("onnxruntime", extra="ort")
        progress("optimising for this CPU", 0, 2)
        try:
            refuse_external(request.graph.read_bytes(), ORT.title)
        except EngineLoadError as error:
            raise BuildError(str(error)) from error
        try:
            options = session_options(ort)
            options.optimized_model_filepath = str(request.output)
            ort.InferenceSession(
                str(request.graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=DISABLED_OPTIMIZERS,
            )
            program = OrtProgram(request.output.read_bytes())
        except Exception as error:  # ONNX Runtime has no common error class
            raise BuildError(f"ONNX Runtime {ort.__version__} refuses it: {error}") from error
        check_profiles(program.inputs, request.profiles)
        progress("counting layers", 1, 2)
        layers = _profiled(ort, request, program.inputs)
        return BuildResult(
            request.output,
            self.flavour,
            str(ort.__version__),
            (),
            program.inputs,
            program.outputs,
            layers=layers,
        )


BUILDER = OrtBuilder(ORT)


def _profiled(
    ort: Any, request: BuildRequest, inputs: Sequence[TensorSpec]
) -> Mapping[str, int] | None:
    """Return the kernels of one run on zeros, by type."""
    with tempfile.TemporaryDirectory(prefix="edgevision-") as folder:
        options = session_options(ort)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(
            request.output.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        shapes = {
            spec.name: request.profiles[spec.name].minimum if spec.is_dynamic else spec.shape
            for spec in inputs
        }
        session.run(None, {s.name: np.zeros(shapes[s.name], s.dtype.numpy) for s in inputs})
        return layers_from_profile(Path(session.end_profiling()).read_text())
