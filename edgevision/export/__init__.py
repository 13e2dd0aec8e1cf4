"""From trained models to graphs; the one room that needs torch and onnx."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgevision._optional import require

if TYPE_CHECKING:
    from edgevision.export.captioner import Captioner
    from edgevision.export.generator import ImageGenerator
    from edgevision.export.instance import InstanceSegmentation
    from edgevision.export.semantic import SemanticSegmentation
    from edgevision.export.tensors import Tensors
    from edgevision.runtime.tasks.seeds import Label, Level, Normal

__all__ = [
    "Captioner",
    "ImageGenerator",
    "InstanceSegmentation",
    "Label",
    "Level",
    "Normal",
    "SemanticSegmentation",
    "Tensors",
]

_HOMES = {
    "Captioner": "edgevision.export.captioner",
    "ImageGenerator": "edgevision.export.generator",
    "InstanceSegmentation": "edgevision.export.instance",
    "Label": "edgevision.runtime.tasks.seeds",
    "Level": "edgevision.runtime.tasks.seeds",
    "Normal": "edgevision.runtime.tasks.seeds",
    "SemanticSegmentation": "edgevision.export.semantic",
    "Tensors": "edgevision.export.tensors",
}

# Here, because whichever module of the room is imported first passes through here.
for _module in ("torch", "onnx", "onnxscript"):
    require(_module, extra="export")


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgevision.export' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
