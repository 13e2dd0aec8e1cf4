"""From trained models to graphs; imports torch and onnx."""

from edgevision.export.semantic import SemanticSegmentation
from edgevision.export.tensors import Tensors

__all__ = ["SemanticSegmentation", "Tensors"]
