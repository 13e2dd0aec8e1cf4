"""What a thread that computes in Python costs a model beside it, and what helps.

    python -m benchmarks.threads [--json-file FILE] [--calls 300]

A net of about 2 ms is called 50 times a second: alone, beside such a thread, and in a process of
its own. Milliseconds from the call to the answer; nothing is judged.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks.graphs import busy_frame
from benchmarks.script import arguments, record
from edgevision.bundle.flavours import ORT
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session

SHAPE = (1, 60, 80, 3)
HZ = 50
SHORT_S = 5e-4


def opened() -> Session:
    graph = busy_frame(SHAPE[1], SHAPE[2], 8)
    return Session.open(graph, flavour=ORT, options=RunOptions(cpu_threads=1))


def paced(call: Callable[[], object], calls: int) -> dict[str, float]:
    """Return the median and the 99th percentile of calls at a camera's rate."""
    times_ms, due = [], time.perf_counter()
    for _ in range(calls):
        due += 1 / HZ
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - began) * 1e3)
    p50, p99 = np.percentile(times_ms, (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def serve(shared: str, wire: Connection) -> None:
    """Answer over shared memory: one call for 0, else so many at the camera's rate."""
    memory = SharedMemory(shared)
    feeds = {"x": np.ndarray(SHAPE, np.uint8, memory.buf)}
    with opened() as session:
        wire.send(session.run(feeds) is not None)
        while (calls := wire.recv()) is not None:
            wire.send(paced(lambda: session.run(feeds), calls) if calls else session.run(feeds))
    feeds.clear()  # else the memory cannot be closed
    memory.close()


def compute(until: threading.Event) -> None:
    number = 0
    while not until.is_set():
        number += 1


def measure(calls: int) -> dict[str, dict[str, float]]:
    memory = SharedMemory(create=True, size=int(np.prod(SHAPE)))
    wire, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(memory.name, theirs))
    child.start()
    wire.recv()

    def ask(calls: int) -> object:
        wire.send(calls)
        return wire.recv()

    feeds, until, found = {"x": np.zeros(SHAPE, np.uint8)}, threading.Event(), {}
    with opened() as session:
        found["alone"] = paced(lambda: session.run(feeds), calls)
        thread = threading.Thread(target=compute, args=(until,))
        thread.start()
        found["beside a thread"] = paced(lambda: session.run(feeds), calls)
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(SHORT_S)
        found[f"beside a thread, switched each {SHORT_S} s"] = paced(
            lambda: session.run(feeds), calls
        )
        sys.setswitchinterval(before_s)
        found["model and loop in a process of their own"] = ask(calls)
        found["model in a process, awaited beside a thread"] = paced(lambda: ask(0), calls)
        until.set()
        thread.join()
    wire.send(None)
    child.join()
    memory.close()
    memory.unlink()
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=300)
    given = parser.parse_args()
    found = measure(given.calls)
    for name, figures in found.items():
        print(f"{name:48} {figures}")
    if given.json_file:
        record(given.json_file, calls=given.calls, hz=HZ, rows=found)


if __name__ == "__main__":
    main()
