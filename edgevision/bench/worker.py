"""One side of a comparison: a process that loads a bundle and runs it when it is told to.

    python worker.py BUNDLE --device auto

It says in one line of JSON what it is, then reads a number of calls from each line of its input and
answers with the nanoseconds of the fastest of them. It uses nothing of edgevision but `load` and
what that returns, so that a copy of it can measure any revision in any environment.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgevision


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with edgevision.load(options.bundle, device=options.device) as model:
        inputs = model.session.inputs
        random = np.random.default_rng(0)
        frames = [
            {
                spec.name: random.integers(0, 200, [max(e, 1) for e in spec.shape]).astype(
                    spec.dtype.numpy
                )
                for spec in inputs
            }
            for _ in range(4)
        ]
        told = {
            "edgevision": edgevision.__version__,
            "precision": model.manifest.precision,
            "task": model.manifest.task,
            "inputs": [str(spec) for spec in inputs],
            "explanation": model.explain(),
        }
        print(json.dumps(told), flush=True)
        run, feed = model.session.run, itertools.cycle(frames)
        gc.collect()
        gc.freeze()
        gc.disable()
        for line in sys.stdin:
            print(min(timed(run, next(feed)) for _ in range(int(line))), flush=True)


def timed(run: Callable[[dict[str, Any]], object], feed: dict[str, Any]) -> int:
    start_ns = perf_counter_ns()
    run(feed)
    return perf_counter_ns() - start_ns


if __name__ == "__main__":
    main()
