"""A worker for `benchmarks.cold_start`: a net up to its first answer, by one way or another.

    python benchmarks/cold_worker.py onnxruntime GRAPH.onnx
    python benchmarks/cold_worker.py edgevision BUNDLE.ev
    python benchmarks/cold_worker.py torch NET

It speaks as `edgevision.bench.gate.worker` does, as far as a cold start asks.
"""

from __future__ import annotations

from time import perf_counter_ns

_BEGAN_NS = perf_counter_ns()

import itertools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

SPENT_NS = {"backend": 0}
Feeds = dict[str, Any]
Loaded = tuple[Callable[[Feeds], object], list[Feeds]]


def by_onnxruntime() -> Callable[[str], Loaded]:
    """Import it, and return what loads a graph as most examples do."""
    import onnxruntime

    def load(graph: str) -> Loaded:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
        inputs = [(node.name, node.shape, kinds[node.type]) for node in session.get_inputs()]
        return lambda feeds: session.run(None, feeds), drawn(inputs)

    return load


def by_edgevision() -> Callable[[str], Loaded]:
    """Import it and ONNX Runtime, and return what loads a bundle; what ONNX Runtime takes is noted.

    Both are imported before, as in `by_onnxruntime`, so that what is left is the load itself.
    """
    import onnxruntime

    import edgevision

    load_bundle = edgevision.load

    class Timed(onnxruntime.InferenceSession):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            start_ns = perf_counter_ns()
            super().__init__(*arguments, **options)
            SPENT_NS["backend"] += perf_counter_ns() - start_ns

    onnxruntime.InferenceSession = Timed

    def load(bundle: str) -> Loaded:
        model = load_bundle(bundle, device="cpu")
        inputs = [(spec.name, spec.shape, spec.dtype.numpy) for spec in model.session.inputs]
        return lambda feeds: model(next(iter(feeds.values()))), drawn(inputs)

    return load


def by_torch() -> Callable[[str], Loaded]:
    """Import it, and return what loads a shipped net, which then runs eagerly."""
    import torch  # noqa: F401

    from edgevision.export.source import resolve

    def load(net: str) -> Loaded:
        adapter = resolve(net).adapter
        inputs = [(spec.name, spec.shape, spec.dtype.numpy) for spec in adapter.inputs]
        return adapter.reference, drawn(inputs)

    return load


def drawn(inputs: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Feeds]:
    """Return a few feeds, with 1 for what is dynamic."""
    random = np.random.default_rng(0)

    def drawn_one(shape: Sequence[Any], dtype: Any) -> Any:
        extents = [extent if isinstance(extent, int) and extent > 0 else 1 for extent in shape]
        return random.integers(0, 200, extents).astype(dtype)

    return [{name: drawn_one(shape, dtype) for name, shape, dtype in inputs} for _ in range(4)]


def main() -> None:
    by, source = sys.argv[1:]
    load = {
        "onnxruntime": by_onnxruntime,
        "edgevision": by_edgevision,
        "torch": by_torch,
    }[by]()
    imported_ns = perf_counter_ns()
    run, feeds = load(source)
    loaded_ns = perf_counter_ns()
    frames = itertools.cycle(feeds)
    run(next(frames))
    clock_ns = {
        "began": _BEGAN_NS,
        "imported": imported_ns,
        "loaded": loaded_ns,
        "answered": perf_counter_ns(),
    }
    print(json.dumps({"clock_ns": clock_ns, "backend_ns": SPENT_NS["backend"]}), flush=True)
    for _ in sys.stdin:
        # Late, and taken off again: until here ONNX Runtime's process knows nothing of edgevision.
        start_ns = perf_counter_ns()
        from edgevision.bench.gate.worker import steady

        spent_ns = perf_counter_ns() - start_ns
        since_ns = steady(run, frames)
        print(json.dumps(since_ns if since_ns is None else since_ns - spent_ns), flush=True)


if __name__ == "__main__":
    main()
