"""The builder for CPUs: ONNX Runtime takes the graph itself, once it has proven to load."""

from __future__ import annotations

import importlib.util

from edgevision.engines.builder import BuildRequest, BuildResult
from edgevision.engines.profiles import check_profiles
from edgevision.errors import BuildError, EngineLoadError
from edgevision.progress import Progress
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.targets import Flavour, TargetProfile


class OrtBuilder:
    """Checks that ONNX Runtime loads the graph, and passes it on byte for byte."""

    flavour = Flavour.ORT

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "ONNX Runtime is not installed; pip install 'edgevision[ort]'"
        return None

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: ONNX Runtime refuses the graph, or a profile does not fit it.
        """
        progress("loading into ONNX Runtime", 0, 0)
        graph = request.graph.read_bytes()
        try:
            program = OrtProgram(graph)
        except EngineLoadError as error:
            raise BuildError(str(error)) from error
        check_profiles(program.inputs, request.profiles)
        request.output.write_bytes(graph)
        return BuildResult(
            request.output, self.flavour, program.version, (), program.inputs, program.outputs
        )
