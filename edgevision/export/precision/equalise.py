"""Cross-layer equalisation: channels that INT8 would give few levels are scaled up, and back.

What scales a channel up is the layer that makes it, and what scales it down again are those that
read it (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction"; here by measured activations, since weights have a scale per channel anyway). The
scale passes through what is linear for positive factors: ReLU, pooling, Add, Concat. So the graph
stays the same but for numbers in its weights and biases, and its answers but for rounding. A ReLU6
passes a scale only as long as nothing comes near its clip.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import CHANNEL_SCALES
from edgevision.export.graph.observe import Profiles, observe
from edgevision.export.graph.qdq_rules import output_axis
from edgevision.export.graph.subgraphs import names_read
from edgevision.export.precision.scales import LEVELS, levels_of, scale_of
from edgevision.export.precision.sensitivity import Trial, noises

_LAYERS = ("Conv", "ConvTranspose")
_PASSING = frozenset(
    "AveragePool Dropout GlobalAveragePool GlobalMaxPool Identity LeakyRelu MaxPool Relu".split()
)
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""0 leaves all as it is, 1 gives each channel the range of the widest."""
_MOST = 1024.0
"""What a weight is divided by at most: the rest of the graph may be float16."""
_HEADROOM = 2.0
"""Frames not seen hold larger values: no channel that is scaled up fills its range, or a clip."""
_SWEEPS = 2
_TINY = 1e-30
_PROOF_SAMPLES = 2

Numbers = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Equalised:
    """An equalised copy, and how many channels have another scale in it."""

    model: onnx.ModelProto
    channels: int


def equalised(model: onnx.ModelProto, feeds: Sequence[Feeds], profiles: Profiles) -> Equalised:
    """Return a copy of a typed `model` whose channels fill their tensors' ranges better.

    It is `model` itself where its layers in INT8 lose no less so.

    Args:
        model: a float32 graph; it is not changed.
        feeds: a few typical feeds, on which channels are measured.
        profiles: bounds of the dynamic inputs.
    """
    channels = _Channels(model)
    tensors = channels.tensors()
    if not tensors:
        return Equalised(model, 0)
    measured = _measured(model, tensors, feeds, profiles)
    if not feeds or not all(np.isfinite(largest).all() for largest, _ in measured.values()):
        return Equalised(model, 0)
    scales = _chosen(channels, measured)
    if np.all(scales == 1):
        return Equalised(model, 0)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {i.name: i for i in copy.graph.initializer}
    by_id = scales[channels.roots]
    for layer in channels.layers:
        _rescale(layer, stored, by_id)
    _note(copy, channels, by_id)
    few = feeds[:: max(1, len(feeds) // _PROOF_SAMPLES)][:_PROOF_SAMPLES]
    before = _decibels(model, channels, measured, np.ones_like(by_id), few, profiles)
    if _decibels(copy, channels, measured, by_id, few, profiles) <= before:
        return Equalised(model, 0)
    return Equalised(copy, int((scales[np.unique(channels.roots)] != 1).sum()))


@dataclass(slots=True)
class _Layer:
    """A convolution: the ids of the channels that it reads and makes; None where not known."""

    node: onnx.NodeProto
    weights: npt.NDArray[np.float32]
    group: int
    reads: Ids | None = None
    makes: Ids | None = None

    def split(self) -> tuple[tuple[int, ...], int, int]:
        """Return the shape with groups apart, and the axes of inputs and of outputs in it."""
        first, second, *taps = self.weights.shape
        shape = (self.group, first // self.group, second, *taps)
        return (shape, 2, 1) if self.node.op_type == "Conv" else (shape, 1, 2)

    def spread(self, by_channel: Numbers, axis: int) -> Numbers:
        """Return numbers for each channel in the shape of the weights with groups apart."""
        shape = [self.group, 1, 1] + [1] * (self.weights.ndim - 2)
        shape[axis] = -1
        return by_channel.reshape(shape)


@dataclass(slots=True)
class _Channels:
    """Every channel of every tensor as an id; ids that must have one scale share a root."""

    model: onnx.ModelProto
    layers: list[_Layer] = field(default_factory=list)
    clips: dict[str, float] = field(default_factory=dict)
    of: dict[str, Ids] = field(default_factory=dict)
    adds: list[str] = field(default_factory=list)
    roots: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    _parents: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        graph = self.model.graph
        stored = {i.name: i for i in graph.initializer}
        shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*graph.input, *graph.value_info, *graph.output)
        }
        reads = [name for node in graph.node for name in node.input]
        once = {name for name in stored if reads.count(name) == 1}
        for node in graph.node:
            self._pass(node, stored, shapes, once)
        for name in {o.name for o in graph.output}:
            self._fix(name)
        self.roots = np.array([self._root(i) for i in range(len(self._parents))])

    def tensors(self) -> list[str]:
        """List what has to be measured."""
        read = [layer.node.input[0] for layer in self.layers if layer.reads is not None]
        return list(dict.fromkeys([*read, *self.clips]))

    def _pass(
        self,
        node: onnx.NodeProto,
        stored: dict[str, onnx.TensorProto],
        shapes: dict[str, list[int]],
        once: set[str],
    ) -> None:
        known = [self.of.get(name) for name in node.input]
        if node.op_type in _LAYERS and set(node.input[1:]) - {""} <= once:
            weights = numpy_helper.to_array(stored[node.input[1]])
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            count = weights.shape[0] if node.op_type == "Conv" else weights.shape[1] * group
            layer = _Layer(node, weights, group, known[0], self._new(count))
            self.layers.append(layer)
            assert layer.makes is not None
            self.of[node.output[0]] = layer.makes
        elif (node.op_type in _PASSING and len(node.output) == 1 and known[0] is not None) or (
            node.op_type == "Resize" and known[0] is not None and self._keeps_channels(node, shapes)
        ):
            self.of[node.output[0]] = known[0]
        elif node.op_type == "Clip" and known[0] is not None and self._from_zero(node, stored):
            self.of[node.output[0]] = known[0]
            top = node.input[2] if len(node.input) > 2 else ""
            if top:
                self.clips[node.output[0]] = float(numpy_helper.to_array(stored[top]))
        elif node.op_type == "Add" and shapes.get(node.input[0]) == shapes.get(node.input[1]):
            self._add(node, known)
        elif node.op_type == "Concat" and any(ids is not None for ids in known):
            self._concat(node, known, shapes)
        elif node.op_type == "Mul" and sum(ids is not None for ids in known) == 1:
            # A gate beside it: whatever that is, the product has the channel's scale.
            place = 0 if known[0] is not None else 1
            mine, other = shapes.get(node.input[place]), shapes.get(node.input[1 - place])
            if mine is not None and other is not None and mine == shapes.get(node.output[0]):
                self.of[node.output[0]] = self.of[node.input[place]]
            else:
                self._fix(node.input[place])
        else:
            for name in names_read([node]):
                self._fix(name)

    def _add(self, node: onnx.NodeProto, known: Sequence[Ids | None]) -> None:
        first, second = known
        if first is None or second is None or len(first) != len(second):
            for name in node.input:
                self._fix(name)
            return
        for a, b in zip(first, second, strict=True):
            self._join(int(a), int(b))
        self.of[node.output[0]] = first
        self.adds += node.input

    def _concat(
        self, node: onnx.NodeProto, known: Sequence[Ids | None], shapes: dict[str, list[int]]
    ) -> None:
        axis = next(a.i for a in node.attribute if a.name == "axis")
        dims = [shapes.get(name) for name in node.input]
        if axis != 1 or not all(d and len(d) > 2 and d[1] for d in dims):
            for name in node.input:
                self._fix(name)
            return
        parts = [
            ids if ids is not None else np.zeros(d[1], np.int64)
            for ids, d in zip(known, dims, strict=True)
            if d
        ]
        self.of[node.output[0]] = np.concatenate(parts)

    def _keeps_channels(self, node: onnx.NodeProto, shapes: dict[str, list[int]]) -> bool:
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        return len(before) > 2 and before[:2] == after[:2] and before[1] > 0

    def _from_zero(self, node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
        ends = [name for name in node.input[1:] if name]
        low = node.input[1] if len(node.input) > 1 else ""
        if not low or not set(ends) <= stored.keys():
            return False
        return float(numpy_helper.to_array(stored[low])) == 0

    def _new(self, count: int) -> Ids:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def _root(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def _join(self, a: int, b: int) -> None:
        # Towards the lower one: 0 is the root of all that keeps its scale.
        low, high = sorted((self._root(a), self._root(b)))
        self._parents[high] = low

    def _fix(self, name: str) -> None:
        for i in self.of.get(name, ()):
            self._join(0, int(i))


def _measured(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feeds], profiles: Profiles
) -> dict[str, tuple[Numbers, Numbers]]:
    """Return the largest magnitude and the mean square of each channel."""
    found: dict[str, tuple[Numbers, Numbers]] = {}
    count = 0
    for values in observe(model, tensors, feeds, profiles):
        count += 1
        for name, value in values.items():
            flat = np.moveaxis(np.asarray(value, np.float32), 1, 0).reshape(value.shape[1], -1)
            if not flat.size:
                continue
            largest = np.maximum(flat.max(1), -flat.min(1)).astype(np.float64)
            squares = np.einsum("cn,cn->c", flat, flat).astype(np.float64) / flat.shape[1]
            before = found.get(name, (np.zeros(len(flat)), np.zeros(len(flat))))
            found[name] = np.maximum(before[0], largest), before[1] + squares
    return {name: (largest, power / count) for name, (largest, power) in found.items()}


@dataclass(frozen=True, slots=True)
class _Reader:
    """What INT8 does to the answer of a layer, as a function of its channels' scales."""

    roots: Ids
    largest: Numbers
    power: Numbers
    columns: Numbers
    tops: Numbers
    taps: int

    def noise(self, scales: Numbers) -> float:
        """Return the modelled noise over the modelled signal."""
        s = scales[self.roots]
        step = (s * self.largest).max() / LEVELS
        of_activations = step**2 / 12 * (self.columns / s**2).sum()
        group, inputs, _ = self.tops.shape
        split = s.reshape(group, inputs, 1)
        steps = (self.tops / split).max(axis=1) / LEVELS
        powers = self.taps * (self.power * s**2).reshape(group, inputs).sum(axis=1)
        of_weights = (steps**2 * powers[:, None]).sum() / 12
        return float((of_activations + of_weights) / ((self.columns * self.power).sum() + _TINY))


def _chosen(channels: _Channels, measured: dict[str, tuple[Numbers, Numbers]]) -> Numbers:
    """Return each root's scale."""
    roots = channels.roots
    scales = np.ones(len(roots))
    shares, bound = np.zeros(len(roots)), np.full(len(roots), _MOST)
    readers: list[_Reader] = []
    for name, (largest, _) in measured.items():
        at = roots[channels.of[name]]
        np.maximum.at(shares, at, largest / max(float(largest.max()), _TINY))
        if name in channels.clips:
            near = largest * _HEADROOM / channels.clips[name]
            np.minimum.at(bound, at, np.maximum(1 / np.maximum(near, _TINY), 1))
    readers += [
        _reader(layer, roots[layer.reads], *measured[layer.node.input[0]])
        for layer in channels.layers
        if layer.reads is not None
    ]
    for name in channels.adds:
        if name in measured:
            size = len(measured[name][0])
            largest, power = measured[name]
            one, tops = np.ones(size), np.ones((size, 1, 1))
            readers.append(_Reader(roots[channels.of[name]], largest, power, one, tops, taps=0))
    groups = _together(channels)
    for _ in range(_SWEEPS):
        for group in groups:
            seen = [reader for reader in readers if np.isin(reader.roots, group).any()]
            if not seen:
                continue
            tried = []
            for strength in _STRENGTHS:
                trial = scales.copy()
                wide = np.clip(shares[group] * _HEADROOM, 1 / _MOST, 1) ** -strength
                trial[group] = np.minimum(wide, bound[group])
                tried.append((sum(reader.noise(trial) for reader in seen), strength, trial))
            scales = min(tried, key=lambda each: each[:2])[2]
    return scales


def _decibels(
    model: onnx.ModelProto,
    channels: _Channels,
    measured: Mapping[str, tuple[Numbers, Numbers]],
    scales: Numbers,
    feeds: Sequence[Feeds],
    profiles: Profiles,
) -> float:
    """Return the signal-to-noise ratios of all layers in INT8, added up; channels have `scales`."""
    stored = {i.name: i for i in model.graph.initializer}
    trials = []
    for layer in channels.layers:
        if layer.reads is not None:
            node = layer.node
            top = (measured[node.input[0]][0] * scales[layer.reads]).max()
            weights = numpy_helper.to_array(stored[node.input[1]])
            levels = levels_of(weights, output_axis(node, weights.ndim))
            trials.append(Trial(node.name, scale_of(top), levels))
    return sum(noise.snr_db() for noise in noises(model, trials, feeds, profiles))


def _together(channels: _Channels) -> list[Ids]:
    """Return the roots that one choice is made for: those that one layer makes, and their like."""
    lead: dict[int, int] = {}
    for layer in channels.layers:
        assert layer.makes is not None
        mine = [int(root) for root in np.unique(channels.roots[layer.makes]) if root]
        leads = {lead[root] for root in mine if root in lead}
        first = min([*leads, *mine], default=0)
        lead.update({root: first for root, old in lead.items() if old in leads})
        lead.update(dict.fromkeys(mine, first))
    return [
        np.array([root for root, other in lead.items() if other == first])
        for first in dict.fromkeys(lead.values())
    ]


def _reader(layer: _Layer, roots: Ids, largest: Numbers, power: Numbers) -> _Reader:
    shape, inputs, _ = layer.split()
    apart = layer.weights.reshape(shape).astype(np.float64)
    if inputs == 2:
        apart = apart.swapaxes(1, 2)
    flat = np.abs(apart.reshape(*apart.shape[:3], -1))
    columns = (flat**2).sum(axis=(2, 3)).reshape(-1)
    return _Reader(roots, largest, power, columns, flat.max(axis=3), flat.shape[3])


def _rescale(layer: _Layer, stored: dict[str, onnx.TensorProto], scales: Numbers) -> None:
    """Write a layer's weights and bias for channels that have `scales`, by id."""
    shape, inputs, outputs = layer.split()
    assert layer.makes is not None
    made = scales[layer.makes]
    wide = layer.weights.reshape(shape).astype(np.float64) * layer.spread(made, outputs)
    if layer.reads is not None:
        wide = wide / layer.spread(scales[layer.reads], inputs)
    node = layer.node
    _write(stored[node.input[1]], wide.reshape(layer.weights.shape))
    if len(node.input) > 2 and node.input[2]:
        bias = stored[node.input[2]]
        _write(bias, numpy_helper.to_array(bias).astype(np.float64) * made)


def _note(model: onnx.ModelProto, channels: _Channels, scales: Numbers) -> None:
    """Write into a graph what each tensor's channels are multiplied by, for who compares graphs."""
    found = {
        name: base64.b64encode(scales[ids].astype("<f4").tobytes()).decode()
        for name, ids in channels.of.items()
        if ids is not None and np.any(scales[ids] != 1)
    }
    model.metadata_props.add(key=CHANNEL_SCALES, value=json.dumps(found))


def channel_scales(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """Return what the channels of a graph's tensors are multiplied by, of those that have a note.

    Raises:
        ValueError: the note is not one of ours.
    """
    notes = [entry.value for entry in model.metadata_props if entry.key == CHANNEL_SCALES]
    found = json.loads(notes[0]) if notes else {}
    return {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in found.items()}


def _write(tensor: onnx.TensorProto, values: Numbers) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
