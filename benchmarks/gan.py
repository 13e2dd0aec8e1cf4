"""Pictures a second of the shipped generator: our graphs, torch eager and torch.compile.

    python -m benchmarks.gan [--json-file FILE] [--rounds 20]

One run, one machine, the same threads. Every way makes `uint8[N, 28, 28, 1]` on the host of the
same latents; ours are the FP32 graph and the INT8 graph with a float32 rest, on ONNX Runtime.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import Call, measure
from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.generated import ImageGenerator
from edgevision.export.recipe import ExportedStage, export_stage
from edgevision.export.samples import calibration_samples, golden_samples
from edgevision.export.source import resolve
from edgevision.runtime.session import Session

BATCHES = (1, 64)
LEVELS = {"fp32": 1, "int8": 64}
"""Levels of 255 that a picture may be off before the comparison is called off."""


def ways(adapter: ImageGenerator, stage: ExportedStage, batch: int) -> dict[str, Call]:
    """Return each way's call, after a look at whether it draws the same pictures."""
    feeds = adapter.drawn(range(batch))
    graph = adapter.graph.eval()
    latent = torch.from_numpy(np.array(feeds["latent"]))

    def torch_way(module: Any) -> Call:
        @torch.inference_mode()
        def call() -> object:
            return module(latent).numpy()

        return call

    found: dict[str, Call] = {}
    for form, name in (("fp32", "fp32"), ("int8", "int8-host")):
        session = Session.open(stage.graphs[name], flavour=ORT, profiles=stage.profiles)
        found[form] = lambda s=session: s.run(feeds)["images"]
    found["eager"] = torch_way(graph)
    if shutil.which("g++"):
        found["compile"] = torch_way(torch.compile(graph))
    else:
        print("torch.compile left out: it needs g++")
    expected = np.asarray(found["eager"](), np.int16)
    for name, call in found.items():
        far = int(np.abs(np.asarray(call(), np.int16) - expected).max())
        if far > LEVELS.get(name, 1):
            raise SystemExit(f"{name}, batch {batch}: pictures are {far} levels off")
    return found


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=20)


def main() -> int:
    options = parser().parse_args()
    adapter = resolve("gan-digits").adapter
    assert isinstance(adapter, ImageGenerator)
    samples, _ = golden_samples(adapter, None, None)
    stage = export_stage(
        adapter, precision="int8", samples=samples, calibration=calibration_samples(adapter, None)
    )
    rows: list[Row] = []
    for batch in BATCHES:
        calls = ways(adapter, stage, batch)
        times = measure(calls, rounds=options.rounds)
        for theirs in [way for way in calls if way not in LEVELS]:
            for ours in ("fp32", "int8"):
                ratio = times.ratio(theirs, over=ours)
                rows.append(row(f"{theirs} over {ours}, batch {batch}", ratio, None, times))
    print(*rows, sep="\n")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
