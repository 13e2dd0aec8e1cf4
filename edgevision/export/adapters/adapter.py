"""The contract between a model and the recipe: what can be exported, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import onnx

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import Array, ShapeProfile, TensorSpec

Feeds = Mapping[str, Array]
Run = Callable[[Feeds], Mapping[str, Array]]


class ModelAdapter(Protocol):
    """A model that gives its FP32 graph and its FP32 answers; holds it unchanged, frees nothing.

    Attributes:
        task: name of the task that decodes the outputs on the run side.
        inputs: what goes in, in order.
        profiles: bounds of the dynamic inputs, by name.
    """

    task: str
    inputs: tuple[TensorSpec, ...]
    profiles: Mapping[str, ShapeProfile]

    def settings(self) -> Settings:
        """Return what the run side must know to decode the outputs, for the manifest."""

    def files(self) -> Mapping[str, bytes]:
        """Return what else the run side needs, by path in the bundle, under `task/`."""
        return {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the FP32 answers that every graph and engine is held against."""

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph; equal models give equal graphs.

        Raises:
            ExportError: the model cannot be captured.
        """

    def kept_fp32(self, graph: onnx.ModelProto) -> Collection[str]:
        """Return the names of `graph`'s nodes that stay in float32 at every precision.

        None by default: what else must stay wide is found by its values.
        """
        return ()


@runtime_checkable
class StagedAdapter(Protocol):
    """A model of several graphs, one fed by the other; beside what every adapter has."""

    stages: Mapping[str, ModelAdapter]

    def stage_feeds(self, samples: Sequence[Feeds]) -> Mapping[str, list[Feeds]]:
        """Return what each stage is fed when the model runs on `samples`."""

    def join_stages(self, runs: Mapping[str, Run]) -> Run:
        """Return what runs the whole model, given what runs each stage."""


@runtime_checkable
class LabelledAdapter(Protocol):
    """A model whose label files may say classes their own way; beside what every adapter has."""

    def read_labels_by(
        self, label_map: Mapping[str, int | str] | None, ignore_index: int | None
    ) -> None:
        """Say how label files are read where the net is scored, here and on the device.

        Args:
            label_map: the class of each number or colour `#rrggbb` in them; others are void.
            ignore_index: the number in them that is void.

        Raises:
            ValueError: one is not a number, a colour or a class.
        """


@runtime_checkable
class StatefulAdapter(Protocol):
    """A model that hands a state from frame to frame; beside what every adapter has.

    Attributes:
        state: what it takes, and under which name it gives that again.
    """

    state: Mapping[str, str]


def adapter_state(adapter: ModelAdapter) -> Mapping[str, str]:
    """Return what a model hands from frame to frame; nothing where it has no state."""
    return adapter.state if isinstance(adapter, StatefulAdapter) else {}


def first_state(adapter: ModelAdapter) -> Feeds:
    """Return the state of a first frame: zeros."""
    state = adapter_state(adapter)
    specs = [spec for spec in adapter.inputs if spec.name in state]
    return {spec.name: np.zeros(spec.shape, spec.dtype.numpy) for spec in specs}


def from_first_state(run: Run, begin: Feeds) -> Run:
    """Return what runs each sample as if it were the first of its stream."""
    return lambda feeds: run({**feeds, **begin})


@runtime_checkable
class GraphAdapter(Protocol):
    """A model that may come as a graph of somebody's; beside what every adapter has.

    Attributes:
        ranges: the ends between which inputs are drawn that are indices or the like, by name.
        is_quantized: whether the graph brings its own Q/DQ, and is not calibrated.
    """

    ranges: Mapping[str, tuple[float, float]]
    is_quantized: bool
