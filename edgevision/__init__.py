"""Trained PyTorch vision models to embedded NVIDIA GPUs: verified bundles, and a lean runtime.

`build` makes a bundle from a model, `finish` builds engines for a bundle on the device, `load` runs
one, `load_words` runs a captioner word by word. Every name is imported at first use, so that a
machine that only runs models never imports what makes them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevision.bundle.directory import Bundle
    from edgevision.engines.extend import finish
    from edgevision.errors import EdgeVisionError
    from edgevision.export.build import build
    from edgevision.runtime.load import load, load_words

    __version__: str

__all__ = ["Bundle", "EdgeVisionError", "__version__", "build", "finish", "load", "load_words"]

_HOMES = {
    "Bundle": "edgevision.bundle.directory",
    "EdgeVisionError": "edgevision.errors",
    "build": "edgevision.export.build",
    "finish": "edgevision.engines.extend",
    "load": "edgevision.runtime.load",
    "load_words": "edgevision.runtime.load",
}

if not TYPE_CHECKING:  # A type checker that saw it would let every misspelt name pass.

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return importlib.metadata.version("edgevision")
        if name not in _HOMES:
            raise AttributeError(f"module 'edgevision' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
