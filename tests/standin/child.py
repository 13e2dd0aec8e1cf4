"""Runs one function of a module on the stand-in driver: `child MODULE:FUNCTION BINDING`."""

from __future__ import annotations

import importlib
import sys

from tests.standin import control
from tests.standin.bindings import opened
from tests.standin.mistakes import WRONG_BYTES, WrongBytesError


def main() -> None:
    """Run the program, then hold it to leaving nothing behind."""
    module, _, name = sys.argv[1].partition(":")
    cuda = opened(sys.argv[2])
    try:
        getattr(importlib.import_module(module), name)(cuda)
    except WrongBytesError:
        sys.exit(WRONG_BYTES)
    finally:
        cuda.close()
    left = control.live()
    if left:
        sys.exit(f"left behind: {left}")


if __name__ == "__main__":
    main()
