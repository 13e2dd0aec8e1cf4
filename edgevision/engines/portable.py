"""The artifact that runs anywhere: the graph itself, once its runtime has loaded it here."""

from __future__ import annotations

from edgevision.bundle.flavours import Flavour
from edgevision.engines.profiles import check_profiles
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.errors import BuildError, EngineLoadError
from edgevision.progress import Progress
from edgevision.runtime.backends.program import make_program
from edgevision.runtime.options import RunOptions


def pass_on(request: BuildRequest, flavour: Flavour, progress: Progress) -> BuildResult:
    """Load the graph by its runtime, and pass it on byte for byte.

    Raises:
        BuildError: the runtime refuses the graph, or a profile does not fit it.
    """
    progress(f"loading into {flavour.title}", 0, 0)
    graph = request.graph.read_bytes()
    try:
        program = make_program(graph, flavour, None, RunOptions())
    except EngineLoadError as error:
        raise BuildError(str(error)) from error
    check_profiles(program.inputs, request.profiles)
    request.output.write_bytes(graph)
    version = program.version.removeprefix(f"{flavour.title} ")
    return BuildResult(request.output, flavour, version, (), program.inputs, program.outputs)
