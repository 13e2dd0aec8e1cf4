"""What adapters share whose one graph takes a camera's frame: a base of each task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import onnx
from torch import nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import Array
from edgevision.export.adapters.adapter import Feeds, first_state
from edgevision.export.adapters.frame import CameraInput
from edgevision.export.adapters.module_adapter import ModuleAdapter
from edgevision.export.adapters.recurrent import Carrying, Recurrent

G = TypeVar("G", bound=nn.Module)


class FrameAdapter(ModuleAdapter, Generic[G]):
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
        super().__init__(graph, (camera.tensor,), tuple(outputs), camera.profiles)
        self.state: Mapping[str, str] = {}
        if recurrent := {part for part in graph.modules() if isinstance(part, Recurrent)}:
            self.whole = carrying = Carrying(graph, recurrent, camera)
            self.state = carrying.state
            self.inputs += carrying.specs
            self.outputs += tuple(self.state.values())

    @property
    def fused(self) -> G:
        """The whole as one module, frame in and answer out; the adapter's own."""
        return self._graph

    def settings(self) -> Settings:
        """Return the sizes and the channel order, for the manifest."""
        return self._settings({})

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the outputs of `frame: uint8[N, ...]`; a state that is not fed is zeros."""
        return super().reference({**first_state(self), **feeds})

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what reads samples of many bits; what else must stay wide is found by values."""
        return self._camera.kept_fp32(graph)

    def _settings(self, own: Settings, *, own_fit: str | None = None) -> Settings:
        """Return what a task says of itself, with the camera and the state."""
        state: Settings = {"state": dict(self.state)} if self.state else {}
        return {**own, **self._camera.settings(own_fit=own_fit), **state}
