"""Builds small graphs by TensorRT-RTX: python -m tests.engines.build_outcomes NAME...

Prints one line of JSON last: by name, what the builder refused it with, empty if it built.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from edgevision.bundle.targets import get_target
from edgevision.engines.request import BuildRequest
from edgevision.engines.trt_rtx import BUILDER
from edgevision.errors import BuildError
from edgevision.progress import silent
from tests.engines.small_graphs import model


def outcome(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model(name).SerializeToString())
        request = BuildRequest(file, get_target("rtx-ampere"), Path(folder) / "engine.plan")
        try:
            BUILDER.build(request, silent)
        except BuildError as error:
            return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps({name: outcome(name) for name in sys.argv[1:]}))
