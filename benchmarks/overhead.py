"""What the runtime adds to raw ONNX Runtime, side by side in one run.

    python -m benchmarks.overhead [--json FILE] [--pairs 60]

The reference is the fastest loop that ONNX Runtime's Python API allows: everything bound once, then
`run_with_iobinding`. Each bar is a ratio of the same run; times in microseconds are printed and
never judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.environment import environment
from benchmarks.graphs import convolution, identity
from benchmarks.pairs import Ratio, measure, median_us
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.options import RunOptions
from edgevision.runtime.pipeline import Pipeline
from edgevision.runtime.schedule import StreamOptions
from edgevision.runtime.session import Session
from edgevision.runtime.timing import Timings
from edgevision.targets import Flavour

SMALL = convolution(4, 24, 24)
LARGE = convolution(24, 128, 128)


@dataclass
class Row:
    """One bar: what was compared, what was found, what was asked for."""

    name: str
    value: float
    bar: float
    at_least: bool = False
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar


class Raw:
    """ONNX Runtime with everything bound once."""

    def __init__(self, graph: bytes, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (self.x,) = (np.zeros(node.shape, np.float32) for node in self.session.get_inputs())
        (self.y,) = (np.zeros(node.shape, np.float32) for node in self.session.get_outputs())
        self.binding = self.bound(self.x, self.y)

    def bound(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Return a binding to these arrays."""
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(y))
        return binding

    def run(self) -> None:
        """Run over what is bound."""
        self.session.run_with_iobinding(self.binding)

    def run_dict(self) -> object:
        """Run the way most users do."""
        return self.session.run(None, {"x": self.x})


class Plain:
    """Tensors in, tensors out."""

    def feeds(self, frame: Mapping[str, object]) -> Mapping[str, object]:
        """Return the frame, which is feeds already."""
        return frame

    def decode(self, outputs: Mapping[str, Any], timings: Timings) -> Mapping[str, Any]:
        """Return the outputs."""
        return outputs


def opened(graph: bytes, *, slots: int = 1) -> Session:
    session = Session.open(
        graph, flavour=Flavour.ORT, options=RunOptions(slots=slots, cpu_threads=1)
    )
    session.warm_up()
    return session


def streamed(graph: bytes) -> Pipeline[Any, Any]:
    options = StreamOptions(policy="block", slots=2)
    program = OrtProgram(graph, cpu_threads=1)
    return Pipeline(program, {}, Plain(), options, run_options=RunOptions())


def details(ratio: Ratio) -> dict[str, object]:
    return {key: round(value, 4) for key, value in asdict(ratio).items()}


def sync_rows(pairs: int) -> list[Row]:
    """B1-B3: one call after the other."""
    rows = []
    for name, graph, bar in (("identity", identity(), 3.0), ("a ~15 us convolution", SMALL, 1.25)):
        raw = Raw(graph)
        feeds = {"x": raw.x}
        with opened(graph) as session:
            ratio = measure(raw.run, lambda s=session, f=feeds: s.run(f), pairs=pairs)
            rows.append(Row(f"sync over raw, {name}", ratio.ratio, bar, details=details(ratio)))
            if name == "identity":
                plain = measure(raw.run_dict, lambda s=session, f=feeds: s.run(f), pairs=pairs)
                rows.append(
                    Row("sync over session.run(dict), identity", plain.ratio, 1.0,
                        details=details(plain))
                )  # fmt: skip
    raw = Raw(LARGE)
    with opened(LARGE) as session, session.input() as buffer:
        buffer["x"][:] = raw.x
        ratio = measure(raw.run, buffer.run, pairs=pairs)
        rows.append(
            Row("sync over raw, >= 0.5 ms, no copy", ratio.ratio, 1.02, details=details(ratio))
        )
    return rows


def async_rows(pairs: int) -> list[Row]:
    """B4: what handing over to the pipeline and back costs, in queue round trips."""
    rows = []
    round_trip_us = queue_round_trip_us()
    for name, graph in (("identity", identity()), ("a ~15 us convolution", SMALL)):
        raw = Raw(graph)
        feeds = {"x": raw.x}
        with (
            opened(graph) as session,
            streamed(graph) as pipeline,
            ThreadPoolExecutor(1) as pool,
        ):
            ratio = measure(
                lambda s=session, f=feeds: s.run(f),
                lambda p=pipeline, f=feeds: p.submit(f).result(),
                pairs=pairs,
            )
            trips = (ratio.b_us - ratio.a_us) / round_trip_us
            found = {**details(ratio), "round_trip_us": round(round_trip_us, 2)}
            rows.append(Row(f"async hand-off in round trips, {name}", trips, 2.0, details=found))
            pooled = measure(
                lambda p=pool, r=raw: p.submit(r.run).result(),
                lambda p=pipeline, f=feeds: p.submit(f).result(),
                pairs=pairs,
            )
            rows.append(
                Row(f"async over ThreadPoolExecutor, {name}", pooled.ratio, 1.0,
                    details=details(pooled))
            )  # fmt: skip
        pipeline.program.close()
    return rows


def queue_round_trip_us() -> float:
    """Return the time of a SimpleQueue hand-over to a thread and back."""
    there: SimpleQueue[object] = SimpleQueue()
    back: SimpleQueue[object] = SimpleQueue()

    def echo() -> None:
        while (item := there.get()) is not None:
            back.put(item)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()

    def trip() -> None:
        there.put(1)
        back.get()

    took_us = median_us(trip)
    there.put(None)
    thread.join()
    return took_us


def asyncio_row(pairs: int) -> Row:
    """B5: `await` over the least that a thread can do for an event loop."""
    graph = SMALL
    raw = Raw(graph)
    feeds = {"x": raw.x}
    calls = 40

    def run(main: Callable[[], Any]) -> None:
        loop.run_until_complete(main())

    jobs: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        while (future := jobs.get()) is not None:
            raw.run()
            loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    loop = asyncio.new_event_loop()

    async def bare() -> None:
        for _ in range(calls):
            future = loop.create_future()
            jobs.put(future)
            await future

    async def ours() -> None:
        for _ in range(calls):
            await pipeline.submit(feeds)

    with streamed(graph) as pipeline:
        ratio = measure(lambda: run(bare), lambda: run(ours), pairs=pairs)
    jobs.put(None)
    thread.join()
    loop.close()
    pipeline.program.close()
    return Row("await over a bare threadsafe future", ratio.ratio, 1.3, details=details(ratio))


def scaling_row(pairs: int) -> Row:
    """B7: two workers on one model, against two workers on one raw session."""
    raw = Raw(LARGE)
    bindings = [raw.bound(np.zeros_like(raw.x), np.zeros_like(raw.y)) for _ in range(2)]
    with opened(LARGE, slots=2) as session, opened(LARGE) as single:

        def ours(_: int) -> None:
            session.run_view({"x": raw.x})

        def theirs(index: int) -> None:
            np.copyto(raw.x, raw.x)
            raw.session.run_with_iobinding(bindings[index])

        one = measure(
            lambda: theirs(0), lambda: single.run_view({"x": raw.x}), pairs=max(10, pairs // 3)
        )
        two = measure(lambda: both(theirs), lambda: both(ours), pairs=max(10, pairs // 3))
    scaling = one.ratio / two.ratio
    return Row(
        "two workers, our scaling over raw scaling", scaling, 0.95, at_least=True,
        details={"one": details(one), "two": details(two)},
    )  # fmt: skip


def both(work: Callable[[int], None]) -> None:
    """Let two threads do a few runs each."""

    def several(index: int) -> None:
        for _ in range(6):
            work(index)

    threads = [threading.Thread(target=several, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of blocks for each ratio")
    options = parser.parse_args()
    rows: list[Row] = []
    start_ns = perf_counter_ns()
    for part in (sync_rows, async_rows, lambda n: [asyncio_row(n)], lambda n: [scaling_row(n)]):
        print(f"{(perf_counter_ns() - start_ns) / 1e9:6.1f} s ...", file=sys.stderr)
        rows += part(options.pairs)
    print(f"{'':44} {'found':>8} {'bar':>8}")
    for row in rows:
        sign = ">=" if row.at_least else "<="
        mark = "ok" if row.passed else "MISSED"
        print(f"{row.name:44} {row.value:8.2f} {sign} {row.bar:5.2f}  {mark}")
    if options.json:
        found = [{**asdict(row), "passed": row.passed} for row in rows]
        told = {"environment": environment(), "rows": found}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
