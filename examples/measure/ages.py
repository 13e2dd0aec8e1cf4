"""How old answers are in a control loop at 30 frames a second, and what became of each frame.

python examples/measure/ages.py road.ev --fps 30 --seconds 5

`edgevision bench --scenario paced` measures the same with more care.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import edgevision


def main() -> None:
    """Parse the arguments, submit grey frames at camera rate, and print percentiles of the age."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()

    ages_ms: list[float] = []
    with edgevision.load(options.bundle) as model:
        frame = np.full((*model.decoder.camera.size, 3), 128, np.uint8)
        stream = model.stream(
            policy="latest", deadline_ms=100, on_result=lambda ticket: ages_ms.append(ticket.age_ms)
        )
        with stream as pipeline:
            start, period_ns = time.perf_counter_ns(), int(1e9 / options.fps)
            for number in range(int(options.seconds * options.fps)):
                due_ns = start + number * period_ns  # the age counts from when it was due
                time.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)
                pipeline.submit(frame, stamp_ns=due_ns)
        print(pipeline.counters())
    if ages_ms:
        p50, p90 = np.percentile(ages_ms, [50, 90])
        print(f"{len(ages_ms)} answers: median {p50:.1f} ms old, nine of ten under {p90:.1f} ms")


if __name__ == "__main__":
    main()
