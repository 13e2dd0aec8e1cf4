"""A driving loop: a camera that drops out, two models, and steering that waits for none of them.

    python examples/drive.py [ROAD.ev OBSTACLES.ev] [--seconds 60] [--hz 30]

Without bundles it builds two small nets first. docs/runtime.md explains the parts.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import edgevision
from edgevision.errors import CallbackError


def build(folder: Path) -> list[Path]:
    """Build two small nets, for those who have no bundles at hand."""
    import torch

    from edgevision.export import SemanticSegmentation

    for name, size in {"road.ev": (120, 160), "obstacles.ev": (60, 80)}.items():
        logits = torch.nn.Conv2d(3, 2, 3, padding=1)
        net = SemanticSegmentation(logits, size=size, input_size=(120, 160), classes=["no", "yes"])
        edgevision.build(net, folder / name, precision="fp32", targets=["host-cpu"])
    return sorted(folder.glob("*.ev"))


def camera(size: tuple[int, int], hz: float, end: float) -> Iterator[tuple[np.ndarray, int]]:
    """Yield frames, all in one buffer, and their stamps; the cable comes off every 300 frames."""
    buffer = np.zeros((*size, 3), np.uint8)
    for number in range(300):
        if time.monotonic() > end:
            return
        buffer[:] = number % 251
        yield buffer, time.time_ns()
        time.sleep(1 / hz)
    raise ConnectionError("the camera does not answer")


def record(ticket: edgevision.Ticket) -> None:
    """Run on the pipeline's thread for each answer; here it fails for every 50th frame."""
    if ticket.sequence % 50 == 49:
        raise OSError(f"frame {ticket.sequence} could not be recorded")


def main() -> int:
    """Drive, print what became of every frame, and return 0 if none is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hz", type=float, default=30.0)
    given, seen = parser.parse_args(), Counter()
    with ExitStack() as stack:
        bundles = given.bundles or build(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        options = edgevision.RunOptions(cpu_threads=1)  # the other cores are the steering's
        models = [stack.enter_context(edgevision.load(b, options=options)) for b in bundles]
        opened = [m.stream(deadline_ms=100, clock="realtime", on_result=record) for m in models]
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            try:
                for frame, stamp_ns in camera(models[0].decoder.camera.size, given.hz, end):
                    for pipeline in opened:
                        seen["submitted"] += 1
                        try:
                            pipeline.submit(frame, stamp_ns=stamp_ns)  # copies it
                        except CallbackError:  # of an earlier frame; this one was taken
                            seen["callbacks that failed"] += 1
                    now_ns = time.perf_counter_ns()  # steer by the newest answers, never wait
                    ages_ms = [(now_ns - t.stamp_ns) / 1e6 for p in opened if (t := p.latest())]
                    is_fresh = len(ages_ms) == len(opened) and max(ages_ms) < 250
                    seen["drives" if is_fresh else "stops"] += 1
            except ConnectionError:
                seen["times the camera was lost"] += 1
                time.sleep(0.1)  # and look for it again
        for pipeline in opened:
            while True:
                try:
                    pipeline.close()
                    break
                except CallbackError:
                    seen["callbacks that failed"] += 1
    counters = [pipeline.counters() for pipeline in opened]
    print(dict(seen), *counters, sep="\n")
    return int(seen["submitted"] != sum(c.delivered + c.dropped + c.lost for c in counters))


if __name__ == "__main__":
    raise SystemExit(main())
