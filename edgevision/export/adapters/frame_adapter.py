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
from edgevision.export.adapters.recurrent import Carrying, Recurrent
from edgevision.export.graph.capture import as_array, capture, evaluating

G = TypeVar("G", bound=nn.Module)


class FrameAdapter(Generic[G]):
    """A model whose fused graph takes one camera's frame, or several cameras'; see `ModelAdapter`.

    A `Recurrent` module in it gives the graph a state.

    Attributes:
        state: what the graph hands from frame to frame; see `StatefulAdapter`.
    """

    def __init__(self, camera: CameraInput, graph: G, outputs: Sequence[str]) -> None:
        """Keep the frame, the graph around the user's module, and the names of its outputs.

        Raises:
            ValueError: there are two states, or one and a number of cameras that is left open.
            ExportError: the module gives a state of another shape than it takes.
        """
        self._camera, self._graph = camera, graph
        self.inputs: tuple[TensorSpec, ...] = (camera.tensor,)
        self.profiles: Mapping[str, ShapeProfile] = camera.profiles
        self._whole: nn.Module = graph
        self.state: Mapping[str, str] = {}
        if recurrent := {part for part in graph.modules() if isinstance(part, Recurrent)}:
            self._whole = carrying = Carrying(graph, recurrent, camera)
            self.state = carrying.state
            self.inputs += carrying.specs
        self._outputs = (*outputs, *self.state.values())

    @property
    def fused(self) -> G:
        """The whole as one module, frame in and answer out; the adapter's own."""
        return self._graph

    def settings(self) -> Settings:
        """Return the sizes and the channel order, for the manifest."""
        return self._settings({})

    def files(self) -> dict[str, bytes]:
        """Return nothing: the manifest says it all."""
        return {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the outputs of `frame: uint8[N, ...]` by eager PyTorch.

        A state that is not fed is zeros.
        """
        given = [torch.from_numpy(np.array(feeds["frame"]))]
        given += [
            torch.from_numpy(np.array(feeds[spec.name]))
            if spec.name in feeds
            else torch.zeros(spec.shape)
            for spec in self.inputs[1:]
        ]
        with evaluating(self._whole):
            found = self._whole(*given)
        found = (found,) if isinstance(found, Tensor) else found
        return {name: as_array(name, x) for name, x in zip(self._outputs, found, strict=True)}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph.

        Raises:
            ExportError: torch cannot export the module.
        """
        return capture(self._whole, self.inputs, self._outputs, self.profiles)

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what reads samples of many bits; what else must stay wide is found by values."""
        return self._camera.kept_fp32(graph)

    def _settings(self, own: Settings, *, own_fit: str | None = None) -> Settings:
        """Return what a task says of itself, with the camera and the state."""
        state: Settings = {"state": dict(self.state)} if self.state else {}
        return {**own, **self._camera.settings(own_fit=own_fit), **state}
