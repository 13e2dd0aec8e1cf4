"""One build: an ONNX file becomes an artifact for one target.

The work is done in a child process of its own: a builder may crash or be killed for memory, and
TensorRT-RTX gives the same bytes for the same graph only in a fresh process.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from time import perf_counter

from edgevision.engines.process import run_child
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.errors import BuildError
from edgevision.progress import Progress, silent

_CHILD = "edgevision.engines.child"


def build_engine(
    request: BuildRequest, progress: Progress = silent, *, timeout_s: float | None = None
) -> BuildResult:
    """Build in a fresh child process; a failure leaves `request.output` as it was.

    Raises:
        BuildError: the builder refused the graph, crashed, was killed or took longer than
            `timeout_s`; `log` has what it said.
    """
    output = request.output.absolute()
    if not output.parent.is_dir():
        raise BuildError(f"there is no folder {output.parent} for the artifact; create it first")
    partial = output.with_name(f".{output.name}.partial-{secrets.token_hex(6)}")
    inner = replace(request, graph=request.graph.absolute(), output=partial)
    started = perf_counter()
    try:
        answer, log = run_child(_CHILD, inner.to_json(), progress, timeout_s=timeout_s)
        result = BuildResult.from_json(answer, request.output, request.target.flavour)
        os.replace(partial, output)
    except OSError as error:
        raise BuildError(f"the artifact cannot be put at {output}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return replace(result, seconds=perf_counter() - started, log=log)
