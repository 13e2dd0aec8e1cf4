"""A captioner as two graphs, an encoder and a step, for `edgevision.load_streaming`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from edgevision.bundle.tensors import NEXT, Array
from edgevision.export.adapters.adapter import Feeds, ModelAdapter, Run
from edgevision.export.adapters.module_adapter import ModuleAdapter
from edgevision.export.adapters.search import nodes_behind_scores
from edgevision.tasks.caption import ENCODE, STEP, TASK, gather_caption


class Part(ModuleAdapter):
    """One stage; its settings and files are the whole model's."""

    task = TASK.name

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what follows from the log-probabilities; see `ModelAdapter`."""
        return list(nodes_behind_scores(graph.graph.node))


def stage_feeds(
    stages: Mapping[str, ModelAdapter], samples: Sequence[Feeds], *, end: int, steps: int
) -> dict[str, list[Feeds]]:
    """Return what the encoder and the step are fed on `samples`, every step of each."""
    found: dict[str, list[Feeds]] = {ENCODE: list(samples), STEP: []}
    for sample in samples:
        feeds: Feeds = stages[ENCODE].reference(sample)
        for _ in range(steps):
            found[STEP].append(feeds)
            made = stages[STEP].reference(feeds)
            if (made["token" + NEXT] == end).all():
                break
            feeds = _following(feeds, made)
    return found


def join_stages(runs: Mapping[str, Run], *, end: int, steps: int) -> Run:
    """Return what gives whole captions of one frame, by a loop on the host."""

    def words(frame: Feeds) -> Iterator[Mapping[str, Array]]:
        feeds: Feeds = runs[ENCODE](frame)
        for _ in range(steps):
            made = runs[STEP](feeds)
            yield {**made, "token": made["token" + NEXT]}
            if int(made["token" + NEXT][0]) == end:
                return
            feeds = _following(feeds, made)

    return lambda frame: gather_caption(words(frame), end=end, steps=steps)


def _following(feeds: Feeds, made: Mapping[str, Array]) -> Feeds:
    """Return the next step's feeds: what it computed, and what stays."""
    return {name: made.get(name + NEXT, array) for name, array in feeds.items()}
