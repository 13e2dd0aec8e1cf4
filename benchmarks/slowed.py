"""A worker for `benchmarks.gate`: a net, slowed down by a known part.

python benchmarks/slowed.py 0.05 net.onnx
"""

from __future__ import annotations

import gc
import json
import sys
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort


def main() -> None:
    part, graph = float(sys.argv[1]), sys.argv[2]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options)
    (wants,) = session.get_inputs()
    feeds = {"x": np.zeros(wants.shape, np.uint8 if "uint8" in wants.type else np.float32)}
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
