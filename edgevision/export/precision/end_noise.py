"""Which layers become INT8 where one answer is of the whole frame: by the noise at the net's ends.

A label or a sentence has no pixels that make up for one wrong answer, and a layer's own noise says
little of what arrives behind fifty others. So each layer's noise is measured at the ends, where
the last layers give logits or features, with that layer by itself in INT8 and all others float.
Noise of layers adds up, so they become INT8 from the one that adds least for what it computes to
the last that leaves the ends as quiet as they must be; that is measured, too. The body of a loop
has ends of its own, and is fed as by the float net. Layers that share their weights are one, as
those of a search that is written out step by step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, observe
from edgevision.export.graph.subgraphs import body_feeds, body_model, loops, names_read
from edgevision.export.precision.macs import multiply_accumulates
from edgevision.export.precision.placement import quantizable
from edgevision.export.precision.quantizer import Quantizer
from edgevision.export.precision.sensitivity import hard_db
from edgevision.progress import Progress, silent

Values = npt.NDArray[np.float32]

_EVERY = 4
"""Of the feeds, those on which each layer is measured by itself; what is chosen is on all."""


def wide_by_ends(
    quantizer: Quantizer,
    feeds: Sequence[Feeds],
    profiles: Profiles,
    min_snr_db: float,
    progress: Progress = silent,
) -> dict[str, str]:
    """Return the layers that stay float, and why: the rest leave the ends above `min_snr_db`.

    Args:
        quantizer: of the net.
        feeds: typical feeds.
        profiles: bounds of the dynamic inputs.
        min_snr_db: signal over noise that each end keeps on nine of ten feeds.
        progress: told how many layers are measured.
    """
    wide: dict[str, str] = {}
    graph = quantizer.source
    for loop in loops(graph.graph):
        if inner := quantizer.of_loop(loop):
            body = body_model(graph, loop)
            steps = list(body_feeds(graph, loop, body, feeds, profiles))
            wide |= wide_by_ends(inner, steps, {}, min_snr_db, progress)
    groups: dict[str, list[str]] = {}
    for node in graph.graph.node:
        if node.name in quantizer.layers:
            groups.setdefault(node.input[1], []).append(node.name)
    if not groups or not feeds:
        return wide
    ends = _Ends(quantizer, feeds, profiles)
    macs = multiply_accumulates(graph, feeds[0], profiles)
    alone = {}
    for done, (key, names) in enumerate(groups.items()):
        progress("measuring layers at the net's ends", done, len(groups))
        alone[key] = ends.snr_db(names, every=_EVERY)
    order = sorted(
        groups,
        key=lambda key: _share(alone[key]) / max(1, sum(macs.get(n, 0) for n in groups[key])),
    )

    def are_quiet(keys: Sequence[str]) -> bool:
        return ends.snr_db([name for key in keys for name in groups[key]]) >= min_snr_db

    fits, over = 0, len(order) + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if are_quiet(order[:middle]):
            fits = middle
        else:
            over = middle
    int8 = order[:fits]
    for key in order[fits:]:
        # One that adds much may stand before some that add little.
        fits_in = sum(_share(alone[k]) for k in [*int8, key]) <= _share(min_snr_db)
        if fits_in and are_quiet([*int8, key]):
            int8.append(key)
    return wide | {
        name: f"{alone[key]:.1f} dB at the net's ends by itself; {min_snr_db:g} are kept without it"
        for key, names in groups.items()
        for name in names
        if key not in set(int8)
    }


def _share(snr_db: float) -> float:
    return float(10 ** (-snr_db / 10))


class _Ends:
    """What the last layers of a quantizer's graph give, beside those of its float graph."""

    def __init__(self, quantizer: Quantizer, feeds: Sequence[Feeds], profiles: Profiles) -> None:
        self._quantizer, self._feeds, self._profiles = quantizer, feeds, profiles
        self._names = last_layers(quantizer.source)
        self._shapes = [v for v in quantizer.source.graph.value_info if v.name in self._names]
        self._exact = list(self._values(quantizer.source, feeds))

    def snr_db(self, int8: Collection[str], every: int = 1) -> float:
        """Return the signal over the noise of the worst end with layers in INT8."""
        if not int8:
            return np.inf
        graph = self._quantizer.apart(int8)
        graph.graph.value_info.extend(self._shapes)
        quantized = self._values(graph, self._feeds[::every])
        pairs = list(zip(self._exact[::every], quantized, strict=True))
        return min(
            hard_db(
                np.array([_power(exact[name]) for exact, _ in pairs]),
                np.array([_power(np.subtract(exact[name], found[name])) for exact, found in pairs]),
            )
            for name in self._names
        )

    def _values(
        self, graph: onnx.ModelProto, feeds: Sequence[Feeds]
    ) -> Iterator[dict[str, Values]]:
        for values in observe(graph, self._names, feeds, self._profiles):
            yield {name: np.array(value, np.float32) for name, value in values.items()}


def _power(values: Values) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def last_layers(graph: onnx.ModelProto) -> list[str]:
    """List what layers with stored weights give that no other such layer reads, or what follows.

    What a loop makes of it counts as another graph's.
    """
    layers = {node.name for node in quantizable(graph)}
    read = set[str]()
    found = []
    for node in reversed(graph.graph.node):
        is_read = not read.isdisjoint(node.output)
        if node.name in layers and not is_read:
            found.append(node.output[0])
        if node.name in layers or is_read:
            read |= names_read([node])
    return found[::-1]
