"""From the start of a process to its first answer: ours, bare ONNX Runtime, torch eager.

    python -m benchmarks.cold_start [--json-file FILE] [--rounds 3] [--demo INT8.ev]

Each round starts a fresh process of each way, one after the other, so that a ratio is of one
moment. All files are in the system's cache: what is cold is the process, not the disk. Ours and
ONNX Runtime load the same graph; ours checks the bundle's hashes.

Two bars are of the demo's INT8 bundle, once everything is imported: `load` and the first answer
over ONNX Runtime's own session and first run, and what `load` takes outside of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np

import edgevision
from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.cold import ColdStart, cold_start
from edgevision.bench.gate.process import Side, workers
from edgevision.bench.gate.sides import of_bundle
from edgevision.bench.pairs import Rounds, estimate
from edgevision.export.zoo import shipped_photos

NETS = ("unet-camvid", "captioner-digits")
# The captioner's search in PyTorch takes so long that nobody would wait for it to become steady.
EAGER = ("unet-camvid",)
OURS = "ours"
_WORKER = str(Path(__file__).with_name("cold_worker.py"))


def sides(net: str, folder: Path) -> dict[str, Side]:
    """Build the net, and return each way to it."""
    bundle = folder / f"{net}.ev"
    edgevision.build(net, bundle)
    graph = str(bundle / "stages" / "main" / "host-cpu.onnx")
    found = {OURS: of_bundle(bundle, device="cpu"), "onnxruntime": other("onnxruntime", graph)}
    return found | {"torch eager": other("torch", net)} if net in EAGER else found


def other(by: str, source: str) -> Side:
    return Side(by, (sys.executable, _WORKER, by, source))


def started(net: str, ways: dict[str, Side], rounds: int) -> dict[str, list[ColdStart]]:
    """Start every way `rounds` times, in shuffled order, after one start that is not counted."""
    for side in ways.values():
        with workers([side]):
            pass
    found: dict[str, list[ColdStart]] = {way: [] for way in ways}
    shuffle = random.Random(0).shuffle
    for number in range(rounds):
        order = list(ways)
        shuffle(order)
        for way in order:
            found[way].append(cold_start(ways[way], processes=1))
        print(f"{net}: {number + 1} of {rounds} rounds", file=sys.stderr)
    return found


def medians(starts: list[ColdStart]) -> dict[str, float | None]:
    """Return each part's median, and of `steady_ms` only where every process came to rest."""
    parts = [{k: v for k, v in asdict(s).items() if k.endswith("_ms")} for s in starts]
    return {
        name: None if None in (values := [part[name] for part in parts]) else median(values)
        for name in parts[0]
    }


def ratios(net: str, found: dict[str, list[ColdStart]]) -> list[Row]:
    """Return how long the others take to the first answer for each unit of our time."""
    times = {way: np.array([s.total_ms for s in starts]) * 1e6 for way, starts in found.items()}
    rounds = Rounds(times, settled=True)
    others = [way for way in found if way != OURS]
    return [
        row(f"{way} over {OURS}, {net}", rounds.ratio(way, over=OURS), None, rounds)
        for way in others
    ]


def demo(folder: Path) -> Path:
    """Build the demo's INT8 bundle."""
    photos = shipped_photos()
    targets = ["host-cpu", "rtx"]
    edgevision.build(
        "unet-camvid", folder / "int8.ev", precision="int8", calibration=photos, targets=targets
    )
    return folder / "int8.ev"


def first_answers(bundle: Path, rounds: int) -> list[Row]:
    """Return how long `load` and the first answer take, and what of it is not ONNX Runtime's."""
    graph = str(bundle / "stages" / "main" / "host-cpu.onnx")
    ways = {OURS: other("edgevision", str(bundle)), "onnxruntime": other("onnxruntime", graph)}
    times: dict[str, list[float]] = {**{way: [] for way in ways}, "outside": []}
    shuffle = random.Random(0).shuffle
    for number in range(-1, rounds):  # the first is not counted
        order = list(ways)
        shuffle(order)
        for way in order:
            with workers([ways[way]]) as (worker,):
                clock, backend_ns = worker.told["clock_ns"], worker.told["backend_ns"]
            if number < 0:
                continue
            times[way].append(clock["answered"] - clock["imported"])
            if way == OURS:
                times["outside"].append(clock["loaded"] - clock["imported"] - backend_ns)
    found = Rounds({way: np.array(ns, float) for way, ns in times.items()}, settled=True)
    outside_ms = estimate(found.times_ns["outside"] / 1e6)
    ratio = found.ratio(OURS, over="onnxruntime")
    return [
        row("load + first answer over session + run, demo INT8", ratio, 1.25, found),
        row("load outside of ONNX Runtime, ms, demo INT8", outside_ms, 50.0, found),
    ]


def parser() -> argparse.ArgumentParser:
    found = arguments(__doc__, rounds=3)
    found.add_argument("--demo", type=Path, metavar="BUNDLE", help="the demo's, if it is there")
    return found


def main() -> int:
    options = parser().parse_args()
    rows: list[Row] = []
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        # Bytecode is there as where a package is installed, whatever this shell says of it: each
        # way's first start, which is not counted, writes it.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        for net in NETS:
            found = started(net, sides(net, Path(folder)), options.rounds)
            parts[net] = {way: medians(starts) for way, starts in found.items()}
            rows += ratios(net, found)
            print(net, parts[net])
        rows += first_answers(options.demo or demo(Path(folder)), 3 * options.rounds)
    print(*rows, sep="\n")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds, parts=parts)
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
