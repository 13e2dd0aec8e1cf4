"""One side of a comparison: a process that loads a bundle and runs it when it is told to.

    python worker.py BUNDLE --device auto

It says in one line of JSON what it is, then reads a number of calls from each line of its input and
answers with the nanoseconds of the fastest of them; at the word "again" it loads the bundle anew.
It uses nothing of edgevision but `load` and what that returns, so that a copy of it can measure any
revision in any environment.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgevision


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    model = edgevision.load(options.bundle, device=options.device)
    frames = itertools.cycle(feeds(model.session.inputs))
    told = {
        "edgevision": edgevision.__version__,
        "precision": model.manifest.precision,
        "task": model.manifest.task,
        "inputs": [str(spec) for spec in model.session.inputs],
        "explanation": model.explain(),
    }
    print(json.dumps(told), flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        if line.strip() == "again":
            # The old one stays until the new one is there, so that they lie in different places.
            old, model = model, edgevision.load(options.bundle, device=options.device)
            old.close()
            del old
            gc.collect()
            print(0, flush=True)
            continue
        run = model.session.run
        print(min(timed(run, next(frames)) for _ in range(int(line))), flush=True)
    model.close()


def feeds(inputs: Iterable[Any]) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [
        {
            spec.name: random.integers(0, 200, [max(e, 1) for e in spec.shape]).astype(
                spec.dtype.numpy
            )
            for spec in inputs
        }
        for _ in range(4)
    ]


def timed(run: Callable[[dict[str, Any]], object], feed: dict[str, Any]) -> int:
    start_ns = perf_counter_ns()
    run(feed)
    return perf_counter_ns() - start_ns


if __name__ == "__main__":
    main()
