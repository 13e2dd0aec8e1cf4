"""What the runtime adds to raw ONNX Runtime, side by side in one run.

    python -m benchmarks.overhead [--json FILE] [--rounds 60]

The reference is the fastest loop that ONNX Runtime's Python API allows: everything bound once, then
`run_with_iobinding`. Each bar is a ratio of the same run; times in microseconds are printed and
never judged. A bar is missed if even the low end of the 99 % interval lies beyond it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.graphs import busy_frame, convolution, identity
from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import Call, estimate, measure, one_core
from edgevision.bench.scenarios import Notes, noted
from edgevision.bundle.flavours import ORT
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.tasks.tensors import TensorsDecoder, TensorsResult
from edgevision.tasks.timings import Timings

SMALL = convolution(4, 36, 36)
LARGE = convolution(32, 160, 128)
# As our users' nets, pixels in and a mask out, in half a millisecond.
MASK = busy_frame(60, 80, 8)
NAMES = {"identity": identity(), "15 us convolution": SMALL}


class Raw:
    """ONNX Runtime with everything bound once."""

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (self.x,) = (aligned(node.shape) for node in self.session.get_inputs())
        self.feeds = {"x": self.x}
        self.run = self.bound(self.x)

    def bound(self, x: np.ndarray) -> Call:
        """Return a call that runs over `x` in place."""
        (shape,) = (node.shape for node in self.session.get_outputs())
        binding, y = self.session.io_binding(), aligned(shape)
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(y))
        return lambda: self.session.run_with_iobinding(binding)

    def run_dict(self) -> object:
        """Run the way most users do."""
        return self.session.run(None, self.feeds)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros that start on a cache line, as the runtime's do: worth a tenth by itself."""
    size_bytes = int(np.prod(shape)) * 4
    block = np.zeros(size_bytes + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size_bytes].view(np.float32).reshape(shape)


class Plain:
    """Tensors in, tensors out."""

    def feeds(self, frame: Mapping[str, object]) -> Mapping[str, object]:
        """Return the frame, which is feeds already."""
        return frame

    def decode(self, outputs: Mapping[str, Any], timings: Timings) -> Mapping[str, Any]:
        """Return the outputs."""
        return outputs


def opened(graph: bytes, *, slots: int = 1) -> Session:
    options = RunOptions(slots=slots, cpu_threads=1)
    session = Session.open(graph, flavour=ORT, options=options)
    session.warm_up()
    return session


@contextmanager
def streamed(graph: bytes) -> Iterator[Pipeline[Any, Any]]:
    program = OrtProgram(graph, cpu_threads=1)
    options = StreamOptions(policy="block", slots=2)
    with Pipeline(program, {}, Plain(), options, run_options=RunOptions()) as pipeline:
        yield pipeline
    program.close()


def sync_rows(rounds: int) -> list[Row]:
    """B1-B3 and B9: one call after the other."""
    rows = []
    for name, graph in NAMES.items():
        raw = Raw(graph)
        with opened(graph) as session:
            found = measure(
                {
                    "raw": raw.run,
                    "dict": raw.run_dict,
                    "ours": lambda s=session, f=raw.feeds: s.run(f),
                },
                rounds=rounds,
            )
        bar = 3.0 if name == "identity" else 1.25
        rows.append(row(f"sync over raw, {name}", found.ratio("ours", over="raw"), bar, found))
        if name == "identity":
            ratio = found.ratio("ours", over="dict")
            rows.append(row("sync over session.run(dict), identity", ratio, 1.0, found))
    return [*rows, large_row(rounds), instrumentation_row(rounds)]


def large_row(rounds: int) -> Row:
    raw = Raw(LARGE)
    with opened(LARGE) as session, session.input() as buffer:
        buffer["x"][:] = raw.x
        found = measure({"raw": raw.run, "ours": buffer.run}, rounds=rounds)
    ratio = found.ratio("ours", over="raw")
    return row("sync over raw, >= 0.5 ms, no copy", ratio, 1.02, found)


def instrumentation_row(rounds: int) -> Row:
    """B9: a frame that `edgevision bench` notes, over the same frame unseen."""
    with opened(MASK) as session:
        frame = {spec.name: np.zeros(spec.shape, spec.dtype.numpy) for spec in session.inputs}
        task = TensorsDecoder(session.inputs)
        notes = Notes(room=1)

        def model(feeds: Mapping[str, object]) -> TensorsResult:
            return task.decode(*session.run_timed(task.feeds(feeds)))

        found = measure(
            {
                "off": lambda: session.run(frame),
                "on": lambda: noted(model, frame, notes, 0, perf_counter_ns()),
            },
            rounds=rounds,
        )
    ratio = found.ratio("on", over="off")
    return row("instrumentation on over off, >= 0.5 ms", ratio, 1.02, found)


def async_rows(rounds: int) -> list[Row]:
    """B4: what handing over to the pipeline and back costs, in queue round trips."""
    rows = []
    for name, graph in NAMES.items():
        raw = Raw(graph)
        with (
            one_core(),
            opened(graph) as session,
            streamed(graph) as pipeline,
            ThreadPoolExecutor(1) as pool,
            echo() as trip,
        ):
            found = measure(
                {
                    "sync": lambda s=session, f=raw.feeds: s.run(f),
                    "async": lambda p=pipeline, f=raw.feeds: p.submit(f).result(),
                    "pool": lambda p=pool, r=raw: p.submit(r.run).result(),
                    "round trip": trip,
                },
                rounds=rounds,
            )
        times = found.times_ns
        trips = estimate((times["async"] - times["sync"]) / times["round trip"])
        rows.append(row(f"async hand-off, round trips, {name}", trips, 2.0, found))
        ratio = found.ratio("async", over="pool")
        rows.append(row(f"async over ThreadPool, {name}", ratio, 1.0, found))
    return rows


@contextmanager
def echo() -> Iterator[Call]:
    """Give a call that hands over to a thread and back by two SimpleQueues."""
    there: SimpleQueue[object] = SimpleQueue()
    back: SimpleQueue[object] = SimpleQueue()

    def answer() -> None:
        while (item := there.get()) is not None:
            back.put(item)

    def trip() -> None:
        there.put(1)
        back.get()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield trip
    there.put(None)
    thread.join()


def await_rows(rounds: int) -> list[Row]:
    """B5: `await` over the least that a thread can do for an event loop."""
    raw = Raw(SMALL)
    calls = 20
    jobs: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()

    def work() -> None:
        while (future := jobs.get()) is not None:
            raw.run()
            loop.call_soon_threadsafe(future.set_result, None)

    async def bare() -> None:
        for _ in range(calls):
            future = loop.create_future()
            jobs.put(future)
            await future

    async def executor() -> None:
        for _ in range(calls):
            await loop.run_in_executor(pool, raw.run)

    async def ours() -> None:
        for _ in range(calls):
            await pipeline.submit(raw.feeds)

    with one_core(), streamed(SMALL) as pipeline, ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        ways = {"bare future": bare, "executor": executor, "ours": ours}
        found = measure(
            {name: lambda w=way: loop.run_until_complete(w()) for name, way in ways.items()},
            rounds=rounds,
        )
        jobs.put(None)
        thread.join()
    loop.close()
    return [
        row("await over a bare future", found.ratio("ours", over="bare future"), 1.3, found),
        row("await over run_in_executor", found.ratio("ours", over="executor"), 0.8, found),
    ]


def scaling_row(rounds: int) -> Row:
    """B7: two workers on one model, against two workers on one raw session."""
    raw = Raw(LARGE)
    inputs = [aligned(raw.x.shape) for _ in range(2)]
    bound = [raw.bound(x) for x in inputs]

    def theirs(index: int) -> None:
        np.copyto(inputs[index], raw.x)
        bound[index]()

    with opened(LARGE, slots=2) as shared, opened(LARGE) as single, ThreadPoolExecutor(2) as pool:

        def ours(session: Session) -> None:
            with session.run_view(raw.feeds):
                pass

        def both(work: Any) -> None:
            """Let two threads do a few runs each."""
            list(pool.map(lambda index: [work(index) for _ in range(6)], range(2)))

        found = measure(
            {
                "raw": lambda: theirs(0),
                "ours": lambda: ours(single),
                "raw, 2 x 6": lambda: both(theirs),
                "ours, 2 x 6": lambda: both(lambda _: ours(shared)),
            },
            rounds=rounds,
        )
    times = found.times_ns
    scaling = times["ours"] / times["ours, 2 x 6"] / (times["raw"] / times["raw, 2 x 6"])
    return row("our scaling over raw, two workers", estimate(scaling), 0.95, found, at_least=True)


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=60)


def main() -> int:
    options = parser().parse_args()
    rows: list[Row] = []
    for part in (sync_rows, async_rows, await_rows, lambda rounds: [scaling_row(rounds)]):
        found = part(options.rounds)
        print(*found, sep="\n", flush=True)
        rows += found
    if options.json:
        keep(options.json, rows, rounds=options.rounds)
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
