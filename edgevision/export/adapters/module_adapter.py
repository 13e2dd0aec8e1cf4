"""What adapters share whose one graph is a torch module's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import Array, ShapeProfile, TensorSpec
from edgevision.export.adapters.adapter import Feeds, ModelAdapter
from edgevision.export.graph.capture import as_array, capture, evaluating


class ModuleAdapter(ModelAdapter):
    """A model whose graph is that of `whole`, tensors in and tensors out; see `ModelAdapter`.

    Attributes:
        whole: the graph as a module, around the user's.
        outputs: the names of what it gives, in order.
    """

    whole: nn.Module
    outputs: tuple[str, ...]

    def __init__(
        self,
        whole: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[str, ...],
        profiles: Mapping[str, ShapeProfile],
    ) -> None:
        self.whole, self.inputs, self.outputs, self.profiles = whole, inputs, outputs, profiles

    def settings(self) -> Settings:
        """Return nothing: of what goes in and comes out the tensors say all."""
        return {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the outputs by eager PyTorch; see `ModelAdapter`."""
        given = [torch.from_numpy(np.array(feeds[spec.name])) for spec in self.inputs]
        with evaluating(self.whole):
            found = self.whole(*given)
        found = (found,) if isinstance(found, Tensor) else found
        return {name: as_array(name, x) for name, x in zip(self.outputs, found, strict=True)}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph; see `ModelAdapter`."""
        return capture(self.whole, self.inputs, self.outputs, self.profiles)
