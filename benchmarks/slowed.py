"""A worker for `benchmarks.gate`: a convolution of about 1 ms, slowed down by a known part.

python -m benchmarks.slowed 0.05
"""

from __future__ import annotations

import gc
import json
import sys
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort

from benchmarks.graphs import convolution


def main() -> None:
    part = float(sys.argv[1])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = convolution(32, 192, 224)
    session = ort.InferenceSession(graph, options)
    feeds = {"x": np.zeros(session.get_inputs()[0].shape, np.float32)}
    print(json.dumps({"task": "gate", "precision": "fp32", "inputs": []}), flush=True)
    gc.disable()
    for line in sys.stdin:
        if line.strip() == "again":
            session = ort.InferenceSession(graph, options)
            print(0, flush=True)
            continue
        times_ns = []
        for _ in range(int(line)):
            begin_ns = perf_counter_ns()
            session.run(None, feeds)
            end_ns = perf_counter_ns()
            end_ns += int(part * (end_ns - begin_ns))
            while perf_counter_ns() < end_ns:
                pass
            times_ns.append(perf_counter_ns() - begin_ns)
        print(min(times_ns), flush=True)


if __name__ == "__main__":
    main()
