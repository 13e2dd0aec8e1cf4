"""What the runtime adds on a GPU, and what its pipeline reaches, over a kernel of known time.

    python -m benchmarks.gpu [--json-file FILE] [--quick]

Ratios are measured side by side in shuffled rounds. "raw" is the tightest loop that Python allows:
one captured graph of copy in, kernel and copy out, launched and waited for by cuda-bindings only.
Then the nets of `benchmarks.gpu_nets`, as far as this machine has what runs them. Under 8 minutes.
These figures say nothing of a Jetson: neither its latency nor its power.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.realtime import hogs
from benchmarks.rows import Row, row
from benchmarks.script import arguments, record
from edgevision.bench.pairs import measure
from edgevision.bench.statistics import Trace, summarise
from edgevision.machine.gpu import compute_capability
from edgevision.runtime.device.cuda.device import CudaDevice, cuda_device
from edgevision.runtime.device.memory import Array
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.runtime.stream.ticket import Ticket
from edgevision.tasks.timings import Timings
from tests.gpu.kernel import KernelProgram

FRAME_BYTES = 64 << 10
# A 512x1024 camera frame and its class map of one byte a pixel, or floats and 19 logits.
PAYLOADS = {
    "uint8 in, class map out": (512 * 1024 * 3, 512 * 1024),
    "float in, logits out": (512 * 1024 * 3 * 4, 512 * 1024 * 19 * 4),
}
WORKS_US = (20.0, 200.0, 2000.0)
BARS = {20.0: 1.10, 200.0: None, 2000.0: 1.02}
OVERLAP_BAR = 0.90
RATES_FPS = (60, 120, 240)
Make = Callable[[int, int, float], KernelProgram]


class Plain:
    """Frames are arrays; the answer is when each part took place."""

    def feeds(self, frame: Array) -> Mapping[str, object]:
        """Return the frame as the kernel's input."""
        return {"frame": frame}

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> Timings:
        """Return the times."""
        return timings


@contextlib.contextmanager
def raw_loop(device: CudaDevice, program: KernelProgram, *, spin: bool) -> Iterator[Any]:
    """Give the tightest loop: a graph launched, an event recorded and waited for, nothing else."""
    cu = program.driver
    size_in, size_out = program.inputs[0].size_bytes, program.outputs[0].size_bytes
    with device.active(), contextlib.ExitStack() as stack:

        def kept(resource: Any) -> Any:
            stack.callback(resource.close)
            return resource

        hosts = [kept(device.allocate_host(n, label="host")) for n in (size_in, size_out)]
        there = [kept(device.allocate(n, label="device")) for n in (size_in, size_out)]
        stream, event = kept(device.stream()), kept(device.event(spin=spin))
        execution = kept(program.execution(None))
        execution.bind("frame", there[0])
        execution.bind("echo", there[1])
        execution.enqueue(stream)
        stream.synchronize()
        with stream.capture() as capture:
            stream.copy(there[0], hosts[0], size_in)
            execution.enqueue(stream)
            stream.copy(hosts[1], there[1], size_out)
        graph = kept(capture.graph)
        launch, record, wait = cu.cuGraphLaunch, cu.cuEventRecord, cu.cuEventSynchronize
        # The handles themselves: what is measured must not pass through our own wrappers.
        exec_handle, stream_handle, event_handle = graph._graph, stream._stream, event.event

        def call() -> None:
            launch(exec_handle, stream_handle)
            record(event_handle, stream_handle)
            wait(event_handle)

        yield call


def launch_rows(device: CudaDevice, make: Make, rounds: int) -> list[Row]:
    """(a) ours over the raw loop, and (b) plain enqueues over a graph."""
    rows = []
    frame = np.zeros(FRAME_BYTES, np.uint8)
    for spin in (False, True):
        how = "spinning" if spin else "blocking"
        for work_us in WORKS_US:
            with contextlib.ExitStack() as stack:

                def opened(us: float = work_us, spin: bool = spin, **options: Any) -> Session:
                    # Events inside the graph are switched off, as they are in the raw loop.
                    choice = RunOptions(spin=spin, timing=False, **options)
                    session = Session(make(FRAME_BYTES, FRAME_BYTES, us), {}, choice)
                    stack.callback(session.close)
                    session.warm_up()
                    return session

                graph, plain, copied = opened(), opened(graph=False), opened()
                in_place = [stack.enter_context(s.input()).run for s in (graph, plain)]
                program = make(FRAME_BYTES, FRAME_BYTES, work_us)
                raw = stack.enter_context(raw_loop(device, program, spin=spin))
                ways = {"raw": raw, "ours": in_place[0], "plain": in_place[1],
                        "with copies": lambda s=copied: s.run({"frame": frame})}  # fmt: skip
                found = measure(ways, rounds=rounds)
            where = f"{work_us:.0f} us, {how}"
            bar = BARS[work_us]
            rows.append(row(f"ours over raw, {where}", found.ratio("ours", over="raw"), bar, found))
            rows.append(
                row(f"plain over graph, {where}", found.ratio("plain", over="ours"), None, found)
            )
    return rows


def overlap(make: Make, frames: int) -> list[dict[str, Any]]:
    """(c) frames a second with 1 to 4 slots, against the bound 1 / max(stage)."""
    told = []
    for name, (size_in, size_out) in PAYLOADS.items():
        frame = np.zeros(size_in, np.uint8)
        with Session(make(size_in, size_out, 1000.0), {}) as session:
            session.warm_up()
            times = [session.run_timed({"frame": frame})[1] for _ in range(20)]
        stages = np.median([t[:3] for t in times], axis=0)
        for slots in (1, 2, 3, 4):
            program = make(size_in, size_out, 1000.0)
            options = StreamOptions(policy="block", slots=slots)
            device_ms: list[tuple[float, ...]] = []

            def note(ticket: Ticket[Timings], kept: list[tuple[float, ...]] = device_ms) -> None:
                kept.append(ticket.result()[:3])

            with Pipeline(program, {}, Plain(), options, run_options=RunOptions(),
                          on_result=note) as pipeline:  # fmt: skip
                for _ in range(10):
                    pipeline.submit(frame).result()
                start_ns = perf_counter_ns()
                tickets = [pipeline.submit(frame) for _ in range(frames)]
                tickets[-1].result()
                seconds = (perf_counter_ns() - start_ns) / 1e9
            program.close()
            bound, reached = 1e3 / float(max(stages)), frames / seconds
            told.append({"payload": name, "slots": slots, "per_second": reached,
                         "bound_per_second": bound, "share": reached / bound,
                         "stages_ms": [float(ms) for ms in stages],
                         "passed": slots != 3 or reached >= OVERLAP_BAR * bound})  # fmt: skip
    return told


def paced(make: Make, seconds: float) -> list[dict[str, Any]]:
    """(d) a camera at 60, 120 and 240 fps, alone and beside a process that computes."""
    size_in, size_out = PAYLOADS["uint8 in, class map out"]
    frame = np.zeros(size_in, np.uint8)
    told = []
    for fps in RATES_FPS:
        for count in (0, 1):
            program = make(size_in, size_out, 2000.0)
            frames, period_ns = round(fps * seconds), 1e9 / fps
            due_ns, done_ns = np.zeros(frames, np.int64), np.zeros(frames, np.int64)

            def note(ticket: Ticket[Timings], kept: Any = done_ns) -> None:
                kept[ticket.sequence] = ticket.done_ns

            options = StreamOptions(policy="latest", deadline_ms=1e3 / fps)
            with hogs(count), Pipeline(program, {}, Plain(), options, run_options=RunOptions(),
                                       on_result=note) as pipeline:  # fmt: skip
                start_ns = perf_counter_ns() + 50_000_000
                for number in range(frames):
                    due_ns[number] = start_ns + round(number * period_ns)
                    if (wait_ns := due_ns[number] - perf_counter_ns()) > 0:
                        time.sleep(wait_ns / 1e9)
                    pipeline.submit(frame, stamp_ns=int(due_ns[number]))
            program.close()
            found = summarise(Trace(due_ns, done_ns, {}), deadline_ms=1e3 / fps)
            told.append({"fps": fps, "hogs": count, **asdict(found)})
    return told


def allocations(device: CudaDevice, make: Make) -> int:
    """Return how often device or pinned memory was allocated in 200 frames of each way."""
    frame = np.zeros(FRAME_BYTES, np.uint8)
    counted = 0
    session = Session(make(FRAME_BYTES, FRAME_BYTES, 5.0), {})
    session.warm_up()
    program = make(FRAME_BYTES, FRAME_BYTES, 5.0)
    pipeline = Pipeline(program, {}, Plain(), StreamOptions(), run_options=RunOptions())
    driver: Any = device.driver
    kept = driver.allocate, driver.allocate_host

    def counting(function: Any) -> Any:
        def call(size_bytes: int) -> Any:
            nonlocal counted
            counted += 1
            return function(size_bytes)

        return call

    driver.allocate, driver.allocate_host = map(counting, kept)
    try:
        for _ in range(200):
            session.run({"frame": frame})
            pipeline.submit(frame).result()
    finally:
        del driver.allocate, driver.allocate_host
        pipeline.close()
        program.close()
        session.close()
    return counted


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few frames of everything, no nets")
    return parser


def main() -> int:
    options = parser().parse_args()
    capability = compute_capability()
    if capability is None:
        print("no NVIDIA GPU or driver on this machine: nothing was measured", file=sys.stderr)
        return 3
    device = cuda_device(binding="cuda-bindings")

    def make(size_in: int, size_out: int, work_us: float) -> KernelProgram:
        return KernelProgram(
            device, capability, size_in=size_in, size_out=size_out, work_us=work_us
        )

    quick = options.quick
    told: dict[str, Any] = {"gpu": device.name, "sm": capability}

    def say(name: str, value: object) -> None:
        print(f"{name}: {value}", flush=True)

    rows = launch_rows(device, make, 4 if quick else 40)
    print(*rows, sep="\n", flush=True)
    told["rows"] = [{**asdict(found), "passed": found.passed} for found in rows]
    told["allocations_in_400_frames"] = allocations(device, make)
    say("device or pinned allocations in 400 frames", told["allocations_in_400_frames"])
    told["overlap"] = overlap(make, 20 if quick else 400)
    for found in told["overlap"]:
        say(f"{found['payload']}, {found['slots']} slots", f"{found['share']:.3f} of the bound")
    told["paced"] = paced(make, 0.5 if quick else 28)
    for found in told["paced"]:
        say(f"{found['fps']} fps, {found['hogs']} hogs", found["percentiles_ms"])
    if not quick:
        from benchmarks import gpu_nets

        told["nets"] = gpu_nets.run()
        for found in told["nets"]:
            say(found["name"], found.get("median_ms") or found["note"])
    passed = all(found.passed for found in rows) and all(f["passed"] for f in told["overlap"])
    told["passed"] = passed and told["allocations_in_400_frames"] == 0
    if options.json_file:
        record(options.json_file, **told)
    return 0 if told["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
