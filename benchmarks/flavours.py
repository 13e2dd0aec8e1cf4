"""Milliseconds a frame of torch eager, ONNX Runtime and OpenVINO, in FP32 and INT8, side by side.

    python -m benchmarks.flavours [--json FILE] [--rounds 20] [--nets unet-camvid ...] [--threads N]

One run, one machine, the same threads, rounds in shuffled order. Every way takes the camera's uint8
frame and gives the uint8 class map; INT8 is the graph with a float32 rest, calibrated on the
repository's photos. What INT8 gains depends on the CPU's instructions, so the result names them.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack

import torch

from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import Call, Rounds, measure
from edgevision.bundle.flavours import flavours
from edgevision.bundle.forms import form_for
from edgevision.engines.registry import builder_for
from edgevision.export.adapters.semantic import SemanticSegmentation
from edgevision.export.recipe import export_stage
from edgevision.export.samples import calibration_samples, golden_samples
from edgevision.export.source import resolve
from edgevision.export.zoo import shipped_photos
from edgevision.machine.identity import int8_instructions
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session

PRECISIONS = ("fp32", "int8")
EAGER = "torch eager"
LEAST_SHARE = {"fp32": 0.999, "int8": 0.9}
"""Of the pixels that a way must label as torch does, else it computes something else."""


def measured(net: str, rounds: int, threads: int) -> Rounds:
    """Time every way on one net, after a look at whether they say the same."""
    adapter = resolve(net).adapter
    assert isinstance(adapter, SemanticSegmentation), "this compares nets for segmentation"
    photos = shipped_photos()
    samples, _ = golden_samples(adapter, photos, None)
    calibration = calibration_samples(adapter, photos)
    stage = export_stage(adapter, precision="int8", samples=samples[:2], calibration=calibration)
    feeds = samples[0]
    calls: dict[str, Call] = {EAGER: lambda: adapter.reference(feeds)}
    (expected,) = adapter.reference(feeds).values()
    with ExitStack() as stack:
        for flavour in (known for known in flavours() if not known.on_gpu):
            if builder_for(flavour).version() is None:
                print(f"{flavour.title} left out: {flavour.remedy}")
                continue
            for precision in PRECISIONS:
                name = f"{flavour.title} {precision.upper()}"
                graph = stage.graphs[form_for(precision, on_gpu=flavour.on_gpu).name]
                options = RunOptions(cpu_threads=threads)
                session = Session.open(
                    graph, flavour=flavour, profiles=stage.profiles, options=options
                )
                stack.enter_context(session)
                (found,) = session.run(feeds).values()
                if (share := float((found == expected).mean())) < LEAST_SHARE[precision]:
                    raise SystemExit(f"{net}, {name}: {share:.2%} of the pixels are torch's")
                calls[name] = lambda session=session: session.run(feeds)
        return measure(calls, rounds=rounds, least_calls=1, warm_up_s=5.0)


def rows(net: str, times: Rounds) -> list[Row]:
    """Return how each way compares with torch, and each runtime's INT8 with its FP32."""
    ways = [way for way in times.times_ns if way != EAGER]
    told = [row(f"{EAGER} over {w}, {net}", times.ratio(EAGER, over=w), None, times) for w in ways]
    for way in ways:
        title, _, precision = way.rpartition(" ")
        if precision == PRECISIONS[-1].upper():
            base = f"{title} {PRECISIONS[0].upper()}"
            ratio = times.ratio(base, over=way)
            told.append(row(f"{base} over {precision}, {net}", ratio, None, times))
    return told


def parser() -> argparse.ArgumentParser:
    found = arguments(__doc__, rounds=20)
    found.add_argument("--nets", nargs="+", default=["unet-camvid"], help="shipped nets")
    found.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every way")
    return found


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    instructions = ", ".join(int8_instructions()) or "none"
    print(f"INT8 instructions of this CPU: {instructions}; threads: {options.threads}")
    told: list[Row] = []
    for net in options.nets:
        found = measured(net, options.rounds, options.threads)
        for way in found.times_ns:
            print(f"{net:20} {way:20} {found.median_us(way) / 1e3:8.2f} ms a frame")
        told += rows(net, found)
    print(*told, sep="\n")
    if options.json_file:
        keep(
            options.json_file,
            told,
            rounds=options.rounds,
            threads=options.threads,
            int8_instructions=instructions,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
