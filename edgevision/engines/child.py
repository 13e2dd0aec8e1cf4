"""The process that a build runs in; `process.py` says how the two talk."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping

from edgevision.engines.registry import builder_for
from edgevision.engines.request import BuildRequest
from edgevision.errors import EdgeVisionError
from edgevision.progress import Progress

_PR_SET_PDEATHSIG = 1


def serve(answer: Callable[[str, Progress], Mapping[str, object]]) -> int:
    """Answer what stdin asks; libraries may print what they like to stdout and stderr."""
    faulthandler.enable()
    # Nobody's child outlives who asked for it, not even for the moment before this call.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return 1
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as messages:

        def send(kind: str, content: object) -> None:
            messages.write(json.dumps({kind: content}) + "\n")

        def progress(phase: str, done: int, total: int) -> None:
            send("progress", [phase, done, total])

        try:
            result = answer(sys.stdin.read(), progress)
        except (EdgeVisionError, OSError, MemoryError) as error:
            send("error", str(error) or type(error).__name__)
            return 1
        send("result", result)
    return 0


def _build(text: str, progress: Progress) -> Mapping[str, object]:
    request = BuildRequest.from_json(text)
    return builder_for(request.target.flavour).build(request, progress).to_json()


if __name__ == "__main__":
    sys.exit(serve(_build))
