"""What adapters share whose one graph takes a camera's frame: a base of each task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import ShapeProfile, TensorSpec
from edgevision.export.adapters.adapter import Array, Feeds
from edgevision.export.adapters.frame import CameraInput
from edgevision.export.graph.capture import capture, evaluating

G = TypeVar("G", bound=nn.Module)


class FrameAdapter(Generic[G]):
    """A model whose fused graph takes one camera's frame; see `ModelAdapter`."""

    def __init__(self, camera: CameraInput, graph: G, outputs: Sequence[str]) -> None:
        """Keep the frame, the graph around the user's module, and the names of its outputs."""
        self._camera, self._graph, self._outputs = camera, graph, tuple(outputs)
        self.inputs: tuple[TensorSpec, ...] = (camera.tensor,)
        self.profiles: Mapping[str, ShapeProfile] = {}

    @property
    def fused(self) -> G:
        """The whole as one module, frame in and answer out; the adapter's own."""
        return self._graph

    def settings(self) -> Settings:
        """Return the sizes and the channel order, for the manifest."""
        return self._camera.settings()

    def files(self) -> dict[str, bytes]:
        """Return nothing: the manifest says it all."""
        return {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the outputs of `frame: uint8[1, ...]` by eager PyTorch."""
        with evaluating(self._graph):
            found = self._graph(torch.from_numpy(np.array(feeds["frame"])))
        found = (found,) if isinstance(found, Tensor) else found
        return {name: x.numpy() for name, x in zip(self._outputs, found, strict=True)}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph.

        Raises:
            ExportError: torch cannot export the module.
        """
        return capture(self._graph, self.inputs, self._outputs, {})

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what reads samples of many bits; what else must stay wide is found by values."""
        return self._camera.kept_fp32(graph)
