"""The process that a build runs in: request on stdin, JSON lines on a pipe, argv its number.

The second argument is the parent's process number: a build does not outlive who asked for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from edgevision.engines.builder import BuildRequest, builder_for
from edgevision.errors import EdgeVisionError

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Build what stdin asks for; libraries may print what they like to stdout and stderr."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return 1
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as pipe:

        def send(message: dict[str, object]) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        def progress(phase: str, done: int, total: int) -> None:
            send({"progress": [phase, done, total]})

        try:
            request = BuildRequest.from_json(sys.stdin.read())
            built = builder_for(request.target.flavour).build(request, progress)
        except (EdgeVisionError, OSError, MemoryError) as error:
            send({"error": {"message": str(error) or type(error).__name__}})
            return 1
        send({"built": built.to_json()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
