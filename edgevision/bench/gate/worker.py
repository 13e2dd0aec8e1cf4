"""One side of a comparison: a process that loads a bundle and runs it when it is told to.

    python worker.py BUNDLE --device auto

It runs the bundle once, says in one line of JSON what it is and when it got how far, then answers
each line of its input with one line:

    a number    so many calls; answers the nanoseconds of the fastest of them
    again       loads the bundle again
    steady      calls until five blocks agree; answers when that was, null if it never was
    counts      what a frame costs in things that are counted, not timed, as JSON

It uses nothing of edgevision but `load` and what that returns, and `Trust` where a signature is
asked for, so that it can measure any revision in any environment.
"""

from __future__ import annotations

from time import perf_counter_ns

_BEGAN_NS = perf_counter_ns()

import sys  # noqa: E402

if __name__ == "__main__":
    # Python puts the folder of a script first, where `statistics` is ours and not the library's.
    del sys.path[0]

import argparse  # noqa: E402
import gc  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import tracemalloc  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import edgevision  # noqa: E402

_SETTLED = 0.03
_BLOCKS, _BLOCK_CALLS = 5, 5
_STEADY_NS = 3_000_000_000
_COUNTED = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trust")
    parser.add_argument("--engines")
    parser.add_argument("--target")
    options = parser.parse_args()
    # Another revision's `load` may not have what nobody asks for.
    names = ("device", "engines", "target")
    given = {k: v for k in names if (v := getattr(options, k)) is not None}
    load = edgevision.load
    imported_ns = perf_counter_ns()
    model = load(trusted(options), **given)
    loaded_ns = perf_counter_ns()
    frames = itertools.cycle(feeds(model.session.inputs))
    first = next(frames)
    model.session.run(first)
    payload = {
        "edgevision": edgevision.__version__,
        "package": str(edgevision.__file__),
        "python": platform.python_version(),
        "precision": precision(model),
        "task": model.manifest.task,
        "inputs": [str(spec) for spec in model.session.inputs],
        "device": model.session.program.device.name,
        "explanation": model.explain(),
        "clock_ns": {
            "began": _BEGAN_NS,
            "imported": imported_ns,
            "loaded": loaded_ns,
            "answered": perf_counter_ns(),
        },
    }
    print(json.dumps(payload), flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        asked = line.strip()
        if asked == "again":
            # The old one stays until the new one is there, so that they lie in different places.
            old, model = model, load(trusted(options), **given)
            old.close()
            del old
            gc.collect()
            print(0, flush=True)
        elif asked == "steady":
            print(json.dumps(steady(model.session.run, frames)), flush=True)
        elif asked == "counts":
            print(json.dumps(counts(model, first)), flush=True)
        else:
            run = model.session.run
            print(min(timed(run, next(frames)) for _ in range(int(asked))), flush=True)
    model.close()


def trusted(options: argparse.Namespace) -> Any:
    """Return the bundle to load, judged first if that is asked for."""
    if options.trust is None:
        return options.bundle
    from edgevision.bundle.trust import Trust

    return Trust.from_argument(options.trust).open(options.bundle, is_measured=True)


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


def steady(run: Callable[[dict[str, Any]], object], frames: Iterable[Any]) -> int | None:
    """Run until five blocks in a row agree; returns when the first of them began."""
    give_up_ns = perf_counter_ns() + _STEADY_NS
    starts: list[int] = []
    blocks: list[int] = []
    supply = iter(frames)
    while perf_counter_ns() < give_up_ns:
        starts.append(perf_counter_ns())
        for _ in range(_BLOCK_CALLS):
            run(next(supply))
        blocks.append(perf_counter_ns() - starts[-1])
        last = blocks[-_BLOCKS:]
        if len(last) == _BLOCKS and max(last) / min(last) - 1 < _SETTLED:
            return starts[-_BLOCKS]
    return None


def counts(model: Any, feed: dict[str, Any]) -> dict[str, int]:
    """Count what one frame costs; the least of a few frames, which repeats exactly."""
    run = model.session.run
    outputs = run(feed)
    events = {"call": 0, "c_call": 0}

    def note(frame: object, event: str, argument: object) -> None:
        if event in events:
            events[event] += 1

    seen = []
    for _ in range(_COUNTED):
        events.update(call=0, c_call=0)
        sys.setprofile(note)
        run(feed)
        sys.setprofile(None)
        seen.append((events["call"], events["c_call"]))
    allocated = []
    tracemalloc.start()
    for _ in range(_COUNTED):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        kept = run(feed)
        _, peak = tracemalloc.get_traced_memory()
        del kept
        allocated.append(peak - before)
    tracemalloc.stop()
    python_calls, library_calls = min(seen)
    return {
        "python_calls": python_calls,
        "library_calls": library_calls,
        "allocated_bytes": min(allocated),
        "bytes_in": sum(array.nbytes for array in feed.values()),
        "bytes_out": sum(array.nbytes for array in outputs.values()),
        "engine_bytes": engine_bytes(model),
    }


def precision(model: Any) -> str:
    """Return the precision that runs: the one that this device chose, or else the bundle's own."""
    choice = getattr(getattr(model, "selection", None), "choice", None)  # older ones know none
    return str(choice.precision if choice else model.manifest.precision)


def engine_bytes(model: Any) -> int:
    """Return the engine's size, in the bundle or finished beside it."""
    finished = getattr(model.selection, "finished", None)  # older revisions know none
    if finished is not None:
        return sum(engine.size_bytes for engine in finished.record.stages)
    chosen = model.explain().splitlines()[0]
    return sum(entry.size_bytes for entry in model.manifest.files if entry.path in chosen)


if __name__ == "__main__":
    main()
