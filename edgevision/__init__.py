"""Trained PyTorch vision models to embedded NVIDIA GPUs: verified bundles, and a lean runtime.

`build` makes a bundle from a model, `finish` builds engines for a bundle on the device, `load` runs
one, `load_streaming` streams a captioner's tokens; with what a process that runs a model names: its
options, its types and the errors to catch. Every name is imported at first use, so that a machine
that only runs models never imports what makes them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevision.bundle.directory import Bundle
    from edgevision.engines.extend import finish
    from edgevision.errors import (
        ClosedError,
        CudaError,
        EdgeVisionError,
        FrameDroppedError,
        FrameError,
        FrameLostError,
        RunError,
        StalledError,
    )
    from edgevision.export.build import build
    from edgevision.runtime.load import load, load_streaming, load_words
    from edgevision.runtime.model import Model
    from edgevision.runtime.options import RunOptions
    from edgevision.runtime.stream.pipeline import Pipeline
    from edgevision.runtime.stream.schedule import Counters, StreamOptions
    from edgevision.runtime.stream.ticket import Ticket

    __version__: str

__all__ = [
    "Bundle",
    "ClosedError",
    "Counters",
    "CudaError",
    "EdgeVisionError",
    "FrameDroppedError",
    "FrameError",
    "FrameLostError",
    "Model",
    "Pipeline",
    "RunError",
    "RunOptions",
    "StalledError",
    "StreamOptions",
    "Ticket",
    "__version__",
    "build",
    "finish",
    "load",
    "load_streaming",
    "load_words",
]

_HOMES = {
    "Bundle": "edgevision.bundle.directory",
    "ClosedError": "edgevision.errors",
    "Counters": "edgevision.runtime.stream.schedule",
    "CudaError": "edgevision.errors",
    "EdgeVisionError": "edgevision.errors",
    "FrameDroppedError": "edgevision.errors",
    "FrameError": "edgevision.errors",
    "FrameLostError": "edgevision.errors",
    "Model": "edgevision.runtime.model",
    "Pipeline": "edgevision.runtime.stream.pipeline",
    "RunError": "edgevision.errors",
    "RunOptions": "edgevision.runtime.options",
    "StalledError": "edgevision.errors",
    "StreamOptions": "edgevision.runtime.stream.schedule",
    "Ticket": "edgevision.runtime.stream.ticket",
    "build": "edgevision.export.build",
    "finish": "edgevision.engines.extend",
    "load": "edgevision.runtime.load",
    "load_streaming": "edgevision.runtime.load",
    "load_words": "edgevision.runtime.load",
}

if not TYPE_CHECKING:  # A type checker that saw it would let every misspelt name pass.

    def __getattr__(name: str) -> object:
        if name == "__version__":
            # Not above: it takes as long to import as all that `load` needs of ours.
            return importlib.import_module("importlib.metadata").version("edgevision")
        if name not in _HOMES:
            raise AttributeError(f"module 'edgevision' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
