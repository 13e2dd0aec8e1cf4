"""The builder for CPUs: ONNX Runtime takes the graph itself, once it has proven to load."""

from __future__ import annotations

import importlib.util
import shutil

from edgevision.engines.builder import BuildRequest, Built
from edgevision.errors import BuildError, EngineLoadError
from edgevision.progress import Progress
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.targets import TargetProfile


class OrtBuilder:
    """Checks that ONNX Runtime loads the graph, and passes it on byte for byte."""

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "ONNX Runtime is not installed; pip install 'edgevision[ort]'"
        return None

    def build(self, request: BuildRequest, progress: Progress) -> Built:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: ONNX Runtime refuses the graph.
        """
        progress("loading into ONNX Runtime", 0, 0)
        try:
            program = OrtProgram(request.graph.read_bytes())
        except EngineLoadError as error:
            raise BuildError(str(error)) from error
        shutil.copyfile(request.graph, request.output)
        return Built(program.version, (), program.inputs, program.outputs)
