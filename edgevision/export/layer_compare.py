"""Two graphs of one net, layer by layer on one frame: how far each answer is from the other's.

Nodes are paired by name, which a build gives every form alike: what INT8 and FP16 add around them
has names of its own. Noise adds up on the way, so the first node that is far off tells more than
the worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgevision.bundle.directory import Bundle
from edgevision.bundle.tensors import Array, Profiles, TensorSpec
from edgevision.errors import FileReadError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.adapters.tensors import graph_inputs
from edgevision.export.graph.observe import observe, typed
from edgevision.export.graph.onnx_file import plain, read_onnx
from edgevision.export.precision.equalise import channel_scales
from edgevision.progress import Progress, silent
from edgevision.tasks.decoders import bundle_decoder, state_names
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.tensors import read_arrays

_AT_ONCE = 16
"""Tensors that are held in memory together."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """How far a node of one graph is from the node of that name in another.

    Attributes:
        node: its name.
        op_type: e.g. "Conv".
        off: the energy of what differs over that of the first graph's values, as a ratio of
            amplitudes (0.01 is 40 dB); of integers the share that differ; NaN where one side is
            not finite.
    """

    node: str
    op_type: str
    off: float

    def exceeds(self, limit: float) -> bool:
        """Whether it is further off than `limit`."""
        return not self.off <= limit

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.node} ({self.op_type}): off by {self.off:.3%}"


@dataclass(frozen=True, slots=True)
class Opened:
    """A graph to compare: typed, with the profiles of its open sizes."""

    model: onnx.ModelProto
    profiles: Profiles
    bundle: Bundle | None


def open_graph(source: Bundle | Path) -> Opened:
    """Return the graph of a bundle, or of an ONNX file.

    Raises:
        FileReadError: the file cannot be read; or the bundle has several graphs.
    """
    if isinstance(source, Path):
        return Opened(typed(plain(read_onnx(source), source.name)), {}, None)
    if len(source.manifest.stages) != 1:
        names = ", ".join(stage.name for stage in source.manifest.stages)
        raise FileReadError(
            f"'{source.root.name}' has several graphs: {names}. Compare their files: "
            f"{source.root.name}/stages/NAME/model.onnx"
        )
    (stage,) = source.manifest.stages
    model = typed(onnx.load_from_string(source.read(stage.graph)))
    return Opened(model, dict(stage.profiles), source)


def frame_feeds(graphs: Sequence[Opened], frame: Path) -> dict[str, Array]:
    """Return what the graphs are fed: a picture as the bundle takes it, or the arrays of an .npz.

    Raises:
        FileReadError: it is neither, or not what the graphs take.
    """
    bundle = next((opened.bundle for opened in graphs if opened.bundle is not None), None)
    if frame.suffix == ".npz":
        feeds = dict(read_arrays(frame, (), with_labels=True)[1])
    else:
        decoder = None if bundle is None else bundle_decoder(bundle.manifest, bundle.read)
        if bundle is None or decoder is None or decoder.camera is None:
            raise FileReadError(
                f"{frame}: the graphs take no frame; give an .npz file keyed by input name"
            )
        picture = resize(read_image(frame), decoder.camera.size)
        feeds = {k: np.asarray(v) for k, v in decoder.feeds(decoder.camera.fit(picture)).items()}
        (stage,) = bundle.manifest.stages
        state = state_names(bundle.manifest.settings, stage)
        feeds |= {s.name: _zeros(s) for s in stage.inputs if s.name in state}
    for opened in graphs:
        wrong = [str(s) for s in graph_inputs(opened.model) if not _fits(feeds.get(s.name), s)]
        if wrong:
            found = ", ".join(f"{n}: {a.dtype}{list(a.shape)}" for n, a in feeds.items())
            raise FileReadError(f"{frame} gives {found}; expected {', '.join(wrong)}")
    return feeds


def compare_layers(
    first: Opened, second: Opened, feeds: Feeds, *, progress: Progress = silent
) -> list[LayerDifference]:
    """Return how far each node is off, in the order in which the first graph runs.

    Raises:
        ValueError: the graphs have no node in common.
    """
    others = {node.name: node for node in second.model.graph.node}
    pairs = [
        (node, others[node.name])
        for node in first.model.graph.node
        if node.name in others and others[node.name].op_type == node.op_type and node.output[0]
    ]
    if not pairs:
        raise ValueError(
            "the graphs have no node of one name and operator: they are not two forms of one net. "
            "Build both from the same source"
        )
    found = []
    for start in range(0, len(pairs), _AT_ONCE):
        progress("comparing layers", start, len(pairs))
        some = pairs[start : start + _AT_ONCE]
        one = _values(first, [a.output[0] for a, _ in some], feeds)
        other = _values(second, [b.output[0] for _, b in some], feeds)
        found += [
            LayerDifference(a.name, a.op_type, _off(one[a.output[0]], other[b.output[0]]))
            for a, b in some
        ]
    return found


def _values(graph: Opened, tensors: Sequence[str], feeds: Feeds) -> dict[str, Array]:
    given = {spec.name: feeds[spec.name] for spec in graph_inputs(graph.model)}
    scales = channel_scales(graph.model)
    for values in observe(graph.model, tensors, [given], dict(graph.profiles)):
        return {name: _plain(value, scales.get(name)) for name, value in values.items()}
    return {}


def _plain(value: Array, scales: Array | None) -> Array:
    """Return a copy of a value whose channels have the scales of the net as it was trained."""
    if scales is None or value.ndim < 2 or value.shape[1] != len(scales):
        return value.copy()
    shape = [1, -1] + [1] * (value.ndim - 2)
    return np.asarray(value, np.float64) / np.asarray(scales, np.float64).reshape(shape)


def _off(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return math.nan
    if one.dtype.kind != "f":
        return float(np.mean(one != other)) if one.size else 0.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    noise = float((np.where(same, 0.0, a - b) ** 2).sum())
    signal = float((np.where(np.isfinite(a), a, 0.0) ** 2).sum())
    if noise == 0:
        return 0.0
    return math.sqrt(noise / signal) if signal > 0 and math.isfinite(noise) else math.nan


def _fits(array: Array | None, spec: TensorSpec) -> bool:
    return array is not None and array.dtype == spec.dtype.numpy and spec.accepts(array.shape)


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros(spec.shape, spec.dtype.numpy)
