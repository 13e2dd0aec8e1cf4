"""From trained models to graphs; the one room that needs torch and onnx."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgevision._optional import require

if TYPE_CHECKING:
    from edgevision.export.semantic import SemanticSegmentation
    from edgevision.export.tensors import Tensors

__all__ = ["SemanticSegmentation", "Tensors"]

_HOMES = {"SemanticSegmentation": "semantic", "Tensors": "tensors"}

# Here, because whichever module of the room is imported first passes through here.
for _module in ("torch", "onnx", "onnxscript"):
    require(_module, extra="export")


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgevision.export' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgevision.export.{_HOMES[name]}"), name)
