"""The builder of what runs anywhere: the graph itself, once its runtime has loaded it here."""

from __future__ import annotations

from edgevision.engines.profiles import check_profiles
from edgevision.engines.request import Builder, BuildRequest, BuildResult
from edgevision.errors import BuildError, EngineLoadError
from edgevision.progress import Progress
from edgevision.runtime.backends.program import make_program
from edgevision.runtime.options import RunOptions


class PortableBuilder(Builder):
    """Checks that a flavour's runtime loads the graph, and passes it on byte for byte."""

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: the runtime refuses the graph, or a profile does not fit it.
        """
        progress(f"loading into {self.flavour.title}", 0, 0)
        graph = request.graph.read_bytes()
        try:
            program = make_program(graph, self.flavour, None, RunOptions())
        except EngineLoadError as error:
            raise BuildError(str(error)) from error
        check_profiles(program.inputs, request.profiles)
        request.output.write_bytes(graph)
        version = program.version.removeprefix(f"{self.flavour.title} ")
        return BuildResult(
            request.output, self.flavour, version, (), program.inputs, program.outputs
        )
