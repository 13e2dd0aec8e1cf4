"""Rounding learnt layer by layer: which weights go up and which go down, so that errors cancel.

AdaRound (Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization") finds
that the loss of a layer's answer is a quadratic form of its weights' errors, over the second
moments of what the layer reads. That form is minimised here directly, weight by weight, from the
nearest levels: no step sizes, no seed, the same levels each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper

from edgevision.bundle.tensors import Array
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, observe
from edgevision.export.precision.scales import LEVELS, Levels
from edgevision.progress import Progress, silent

_MAX_INPUTS = 2400
"""Of one output: beyond, the second moments take more memory and time than rounding can win."""
_MAX_PATCHES = 1024
"""In one frame: what the moments are of, spread evenly over it."""
_SWEEPS = 3
_DAMPING = 1e-3
"""Of the mean moment, towards each weight itself: few frames say little of some inputs."""
_TINY = 1e-12

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Moments:
    """float64[groups, inputs, inputs]: of rounded inputs, and of exact ones with rounded ones."""

    rounded: Numbers
    mixed: Numbers


def learnt(
    model: onnx.ModelProto,
    layers: Mapping[str, tuple[float, Levels]],
    feeds: Sequence[Feeds],
    profiles: Profiles,
    progress: Progress = silent,
) -> dict[str, Levels]:
    """Return other levels for layers of a typed float32 `model`, at the scales that they have.

    Transposed convolutions and layers of very many inputs are left out.

    Args:
        model: a float graph.
        layers: the scale of what a layer reads and its nearest levels, by its name.
        feeds: a few typical feeds.
        profiles: bounds of the dynamic inputs.
        progress: told how many layers are done.
    """
    stored = {i.name: i for i in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.name in layers and _inputs_of(node, layers[node.name][1]) <= _MAX_INPUTS
    ]
    sums: dict[str, _Moments] = {}
    tensors = list(dict.fromkeys(node.input[0] for node in nodes))
    for done, values in enumerate(observe(model, tensors, feeds, profiles)):
        progress("measuring for rounding", done, len(feeds))
        for node in nodes:
            scale, levels = layers[node.name]
            found = _moments(node, values[node.input[0]], scale, levels)
            before = sums.get(node.name)
            if before is not None:
                found = _Moments(before.rounded + found.rounded, before.mixed + found.mixed)
            sums[node.name] = found
    better = {}
    for done, node in enumerate(nodes):
        progress("learning rounding", done, len(nodes))
        weights = numpy_helper.to_array(stored[node.input[1]])
        better[node.name] = _descended(weights, layers[node.name][1], sums.pop(node.name))
    return better


def _inputs_of(node: onnx.NodeProto, levels: Levels) -> float:
    if node.op_type == "ConvTranspose" or (node.op_type == "MatMul" and levels.values.ndim > 2):
        return np.inf
    return float(levels.values.size / levels.values.shape[levels.axis])


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _moments(node: onnx.NodeProto, value: Array, scale: float, levels: Levels) -> _Moments:
    """Return what one feed adds."""
    exact = _patches(node, np.asarray(value, np.float32), levels)
    rounded = np.rint(exact / np.float32(scale)).clip(-LEVELS - 1, LEVELS) * np.float32(scale)
    turned = rounded.swapaxes(1, 2)
    mixed = exact.swapaxes(1, 2) @ rounded
    return _Moments((turned @ rounded).astype(np.float64), mixed.astype(np.float64))


def _patches(
    node: onnx.NodeProto, value: npt.NDArray[np.float32], levels: Levels
) -> npt.NDArray[np.float32]:
    """Return what outputs are made of, float32[groups, outputs, inputs]."""
    if node.op_type != "Conv":
        given = _attributes(node)
        rows = value.T if given.get("transA") else value
        flat = rows.reshape(-1, rows.shape[-1])
        return flat[None, :: -(-len(flat) // _MAX_PATCHES)]
    given = _attributes(node)
    kernel = levels.values.shape[2:]
    rank = len(kernel)
    strides = list(given.get("strides", [1] * rank))  # type: ignore[call-overload]
    dilations = list(given.get("dilations", [1] * rank))  # type: ignore[call-overload]
    group = int(given.get("group", 1))  # type: ignore[call-overload]
    sides = _pads(given, value.shape[2:], kernel, strides, dilations)
    padded = np.pad(value, [(0, 0), (0, 0), *sides])
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    outer = [slice(None, None, s) for s in strides]
    inner = [slice(None, None, d) for d in dilations]
    steps: tuple[Any, ...] = (slice(None), slice(None), *outer, *inner)
    windows = windows[steps]
    places = windows.shape[2 : 2 + rank]
    count = int(np.prod(places)) * len(value)
    every = -(-count // _MAX_PATCHES)
    index = np.unravel_index(np.arange(every // 2, count, every), (len(value), *places))
    frame, *place = index
    chosen: tuple[Any, ...] = (slice(None), frame, *place)
    taken = windows.swapaxes(0, 1)[chosen].swapaxes(0, 1)
    shape = (len(taken), group, value.shape[1] // group * int(np.prod(kernel)))
    return np.ascontiguousarray(taken.reshape(shape).swapaxes(0, 1))


def _pads(
    given: Mapping[str, object],
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    rank = len(kernel)
    auto = given.get("auto_pad", b"NOTSET")
    if auto in (b"NOTSET", b"VALID", ""):
        pads = list(given.get("pads", [0] * 2 * rank))  # type: ignore[call-overload]
        return list(zip(pads[:rank], pads[rank:], strict=True))
    found = []
    for length, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        whole = max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        small = whole // 2
        found.append((small, whole - small) if auto == b"SAME_UPPER" else (whole - small, small))
    return found


def _descended(weights: Array, levels: Levels, moments: _Moments) -> Levels:
    """Return levels of less error, none of them further than a step from its weight."""
    groups, inputs, _ = moments.rounded.shape
    channels = len(levels.scales)
    rows = np.moveaxis(weights, levels.axis, 0).astype(np.float64)
    shape = groups, channels // groups, inputs
    exact = rows.reshape(shape)
    start = np.moveaxis(levels.values, levels.axis, 0).reshape(shape).astype(np.float64)
    steps = levels.scales.astype(np.float64).reshape(groups, -1)
    moment = moments.rounded + 0
    power = np.einsum("gkk->gk", moment)
    damping = _DAMPING * power.mean(axis=1, keepdims=True) + _TINY
    power += damping
    linear = exact @ moments.mixed + exact * damping[:, None]
    found = start.copy()
    low, high = np.floor(exact / steps[..., None]), np.ceil(exact / steps[..., None])
    low, high = low.clip(-LEVELS, LEVELS), high.clip(-LEVELS, LEVELS)
    slope = found * steps[..., None] @ moment - linear
    for _ in range(_SWEEPS):
        before = found.copy()
        for k in range(inputs):
            ideal = found[..., k] - slope[..., k] / (power[:, None, k] * steps)
            chosen = np.rint(ideal).clip(low[..., k], high[..., k])
            change = (chosen - found[..., k]) * steps
            if change.any():
                slope += change[..., None] * moment[:, None, k]
                found[..., k] = chosen
        if (found == before).all():
            break
    values = np.moveaxis(found.reshape(rows.shape).astype(np.int8), 0, levels.axis)
    return Levels(values, levels.scales, levels.axis)
