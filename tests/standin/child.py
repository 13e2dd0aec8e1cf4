"""Runs functions on the stand-in driver, a forked process for each: `child BINDING`.

A line of JSON on standard input says which function, and in which order of work; a line of what
that came to goes back. Numpy and the bindings are imported once. The driver reads its environment
only where it is used first, which is after the fork: each function has a driver of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable

from tests.standin import control
from tests.standin.bindings import Calls, opened
from tests.standin.mistakes import WRONG_BYTES, WrongBytesError

LIMIT_S = 60
_DRIVERS = {"cuda-bindings": "cuda.bindings.driver", "pycuda": "pycuda.driver"}


def main() -> None:
    """Serve until the input ends."""
    binding = sys.argv[1]
    importlib.import_module(_DRIVERS[binding])
    for line in sys.stdin:
        asked = json.loads(line)
        module, _, name = asked["program"].partition(":")
        program = getattr(importlib.import_module(module), name)  # once, here: pytest is large
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if not child:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.environ.update(asked["environment"])
                signal.alarm(LIMIT_S)
                _run(program, binding)
                return
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            out.seek(0), err.seek(0)
            told = {
                "returncode": code,
                "stdout": out.read().decode(),
                "stderr": err.read().decode(),
            }
        print(json.dumps(told), flush=True)


def _run(program: Callable[[Calls], None], binding: str) -> None:
    """Run the program, then hold it to leaving nothing behind."""
    cuda = opened(binding)
    try:
        program(cuda)
    except WrongBytesError:
        sys.exit(WRONG_BYTES)
    finally:
        cuda.close()
    left = control.live()
    if left:
        sys.exit(f"left behind: {left}")


if __name__ == "__main__":
    main()
