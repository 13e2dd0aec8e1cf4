"""What the runtime adds to raw ONNX Runtime, side by side in one run: what users call, and parts.

    python -m benchmarks.overhead [--json-file FILE] [--rounds 60]

The reference is the fastest loop that ONNX Runtime's Python API allows: everything bound once, then
`run_with_iobinding(binding)`. Each bar is a ratio of the same run; times in microseconds are
printed and never judged. A bar is missed if even the low end of the 99 % interval lies beyond it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

import numpy as np
import onnxruntime as ort

import edgevision
from benchmarks.graphs import busy_frame, convolution, identity
from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import Call, Rounds, estimate, measure, one_core
from edgevision.bench.scenarios import Notes, noted
from edgevision.bundle.flavours import ORT
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session

SMALL = convolution(4, 36, 36)
LARGE = convolution(32, 160, 128)
# As our users' nets, pixels in and a mask out: half a millisecond, and 2.5.
MASK = busy_frame(60, 80, 8)
LARGE_MASK = busy_frame(120, 160, 10)
NAMES = {"identity": identity(), "15 us convolution": SMALL}
_PACE_HZ, _PACED_S = 30, 1.0


class Raw:
    """ONNX Runtime with everything bound once."""

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (self.x,) = (aligned(node) for node in self.session.get_inputs())
        self.feeds = {"x": self.x}
        self.run = self.bound(self.x)

    def bound(self, x: np.ndarray) -> Call:
        """Return a call that runs over `x` in place."""
        (y,) = (aligned(node) for node in self.session.get_outputs())
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(y))
        return lambda: self.session.run_with_iobinding(binding)

    def run_dict(self) -> object:
        """Run the way most users do."""
        return self.session.run(None, self.feeds)


def aligned(node: Any) -> np.ndarray:
    """Return zeros that start on a cache line, as the runtime's do: worth a tenth by itself."""
    dtype = np.dtype({"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[node.type])
    size_bytes = int(np.prod(node.shape)) * dtype.itemsize
    block = np.zeros(size_bytes + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size_bytes].view(dtype).reshape(node.shape)


def opened(graph: bytes, *, slots: int = 1) -> Session:
    options = RunOptions(slots=slots, cpu_threads=1)
    session = Session.open(graph, flavour=ORT, options=options)
    session.warm_up()
    return session


@contextmanager
def loaded(graph: bytes) -> Iterator[Model[Any]]:
    """Build a bundle of the graph, and load it as users do."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "net.onnx"
        source.write_bytes(graph)
        edgevision.build(source, Path(folder) / "net.ev")
        options = RunOptions(cpu_threads=1)
        with edgevision.load(Path(folder) / "net.ev", device="cpu", options=options) as model:
            model.session.warm_up()
            yield model


def sync_rows(rounds: int) -> list[Row]:
    """One call after the other."""
    rows = []
    for name, graph in NAMES.items():
        raw = Raw(graph)
        with loaded(graph) as model, one_core():
            found = measure(
                {
                    "raw": raw.run,
                    "dict": raw.run_dict,
                    "ours": lambda m=model, f=raw.feeds: m(f),
                },
                rounds=rounds,
            )
        bar = 2.0 if name == "identity" else 1.25
        rows.append(
            row(f"model(frame) over raw, {name}", found.ratio("ours", over="raw"), bar, found)
        )
        if name == "identity":
            ratio = found.ratio("ours", over="dict")
            rows.append(row("model(frame) over session.run(dict), identity", ratio, 1.0, found))
    raw = Raw(LARGE_MASK)
    with loaded(LARGE_MASK) as model:
        found = measure({"raw": raw.run, "ours": lambda: model(raw.feeds)}, rounds=rounds)
    rows.append(row("model(frame) over raw, 2.5 ms", found.ratio("ours", over="raw"), 1.02, found))
    return [*rows, large_row(rounds), instrumentation_row(rounds)]


def large_row(rounds: int) -> Row:
    raw = Raw(LARGE)
    with opened(LARGE) as session, session.input() as buffer:
        buffer["x"][:] = raw.x
        found = measure({"raw": raw.run, "ours": buffer.run}, rounds=rounds)
    ratio = found.ratio("ours", over="raw")
    return row("sync over raw, >= 0.5 ms, no copy", ratio, 1.02, found)


def instrumentation_row(rounds: int) -> Row:
    """A frame that `edgevision bench` notes, over the same frame unseen."""
    with loaded(MASK) as model:
        frame = {s.name: np.zeros(s.shape, s.dtype.numpy) for s in model.session.inputs}
        notes = Notes(room=1)
        found = measure(
            {
                "off": lambda: model(frame),
                "on": lambda: noted(model, frame, notes, 0, perf_counter_ns()),
            },
            rounds=rounds,
        )
    ratio = found.ratio("on", over="off")
    return row("instrumentation on over off, >= 0.5 ms", ratio, 1.02, found)


def async_rows(rounds: int) -> list[Row]:
    """What handing over to the pipeline and back costs, also in queue round trips."""
    rows = []
    for name, graph in NAMES.items():
        raw = Raw(graph)
        with (
            one_core(),
            loaded(graph) as model,
            model.stream(policy="block", slots=2) as pipeline,
            ThreadPoolExecutor(1) as pool,
            echo() as trip,
        ):
            found = measure(
                {
                    "raw": raw.run,
                    "sync": lambda m=model, f=raw.feeds: m(f),
                    "async": lambda p=pipeline, f=raw.feeds: p.submit(f).result(),
                    "pool": lambda p=pool, r=raw: p.submit(r.run).result(),
                    "round trip": trip,
                },
                rounds=rounds,
            )
        times = found.times_ns
        if name == "identity":
            ratio = found.ratio("async", over="raw")
            rows.append(row("submit().result() over raw, identity", ratio, 8.0, found))
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
    """`await` over the least that a thread can do for an event loop.

    No bar: what the event loop takes is asyncio's, and what comes before it is `submit`, whose bars
    stand above. A bare future copies nothing, keeps no order and counts nothing.
    """
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

    with (
        one_core(),
        loaded(SMALL) as model,
        model.stream(policy="block", slots=2) as pipeline,
        ThreadPoolExecutor(1) as pool,
    ):
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
        row("await over a bare future", found.ratio("ours", over="bare future"), None, found),
        row("await over run_in_executor", found.ratio("ours", over="executor"), None, found),
    ]


def scaling_row(rounds: int) -> Row:
    """Two workers on one model, against two workers on one raw session."""
    raw = Raw(LARGE)
    (node,) = raw.session.get_inputs()
    inputs = [aligned(node) for _ in range(2)]
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


def fairness_rows(rounds: int) -> list[Row]:
    """How many of its calls a 30 Hz thread gets, beside one that calls back to back."""
    raw = Raw(LARGE_MASK)
    shares: dict[str, list[float]] = {"raw": [], "ours": []}
    with loaded(LARGE_MASK) as model:
        busy = {"raw": raw.bound(raw.x.copy()), "ours": lambda: model(raw.feeds)}
        paced = {"raw": raw.run, "ours": busy["ours"]}
        for _ in range(max(rounds // 6, 5)):
            for way, found in shares.items():
                found.append(paced_share(paced[way], busy[way]))
    rounds_of = Rounds({way: np.array(found) * 1e3 for way, found in shares.items()}, settled=True)
    return [
        row(
            f"share of its calls that a 30 Hz thread gets, {way}",
            estimate(np.array(found)),
            bar,
            rounds_of,
            at_least=True,
        )
        for (way, found), bar in zip(shares.items(), (None, 0.97), strict=True)
    ]


def paced_share(paced: Call, busy: Call) -> float:
    """Return how many of the calls that were due in a second were made; one that is late is not."""
    has_ended = threading.Event()

    def hog() -> None:
        while not has_ended.is_set():
            busy()

    thread = threading.Thread(target=hog)
    thread.start()
    begin_s, made, due = perf_counter(), 0, 0
    while due < _PACE_HZ * _PACED_S:
        sleep(max(0.0, begin_s + due / _PACE_HZ - perf_counter()))
        paced()
        made += 1
        # What fell due during the call is gone, as a camera's frames would be.
        due = max(due + 1, int((perf_counter() - begin_s) * _PACE_HZ))
    has_ended.set()
    thread.join()
    return made / due


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=60)


def main() -> int:
    options = parser().parse_args()
    rows: list[Row] = []
    parts = sync_rows, async_rows, await_rows, fairness_rows, lambda n: [scaling_row(n)]
    for part in parts:
        found = part(options.rounds)
        print(*found, sep="\n", flush=True)
        rows += found
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds)
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
