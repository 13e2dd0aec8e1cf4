"""From trained models to graphs; the one room that needs torch and onnx."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgevision._optional import require

if TYPE_CHECKING:
    from edgevision.export.adapters.caption import Captioner
    from edgevision.export.adapters.classification import Classification
    from edgevision.export.adapters.depth import Depth
    from edgevision.export.adapters.detection import Detection
    from edgevision.export.adapters.frame import Camera
    from edgevision.export.adapters.generated import ImageGenerator
    from edgevision.export.adapters.instance import InstanceSegmentation
    from edgevision.export.adapters.multitask import (
        DepthHead,
        DetectionHead,
        MultiTask,
        SemanticHead,
    )
    from edgevision.export.adapters.recurrent import Recurrent
    from edgevision.export.adapters.semantic import SemanticSegmentation
    from edgevision.export.adapters.tensors import Tensors
    from edgevision.export.fake_quantization import fake_quantize
    from edgevision.tasks.seeds import Label, Level, Normal

__all__ = [
    "Camera",
    "Captioner",
    "Classification",
    "Depth",
    "DepthHead",
    "Detection",
    "DetectionHead",
    "ImageGenerator",
    "InstanceSegmentation",
    "Label",
    "Level",
    "MultiTask",
    "Normal",
    "Recurrent",
    "SemanticHead",
    "SemanticSegmentation",
    "Tensors",
    "fake_quantize",
]

ADAPTERS = {
    "Captioner": "edgevision.export.adapters.caption",
    "Classification": "edgevision.export.adapters.classification",
    "Depth": "edgevision.export.adapters.depth",
    "Detection": "edgevision.export.adapters.detection",
    "ImageGenerator": "edgevision.export.adapters.generated",
    "InstanceSegmentation": "edgevision.export.adapters.instance",
    "MultiTask": "edgevision.export.adapters.multitask",
    "SemanticSegmentation": "edgevision.export.adapters.semantic",
    "Tensors": "edgevision.export.adapters.tensors",
}
"""The class that wraps a module for each task, and where it is."""

_HOMES = {
    **ADAPTERS,
    "Camera": "edgevision.export.adapters.frame",
    "DepthHead": "edgevision.export.adapters.multitask",
    "DetectionHead": "edgevision.export.adapters.multitask",
    "Recurrent": "edgevision.export.adapters.recurrent",
    "SemanticHead": "edgevision.export.adapters.multitask",
    "Label": "edgevision.tasks.seeds",
    "Level": "edgevision.tasks.seeds",
    "Normal": "edgevision.tasks.seeds",
    "fake_quantize": "edgevision.export.fake_quantization",
}

# Here, because whichever module of the room is imported first passes through here.
for _module in ("torch", "onnx", "onnxscript"):
    require(_module, extra="export")


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgevision.export' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
