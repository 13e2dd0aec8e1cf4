"""From the start of a process to its first answer: ours, bare ONNX Runtime, torch eager.

    python -m benchmarks.cold_start [--json-file FILE] [--rounds 3]

Each round starts a fresh process of each way, one after the other, so that a ratio is of one
moment. All files are in the system's cache: what is cold is the process, not the disk. Ours and
ONNX Runtime load the same graph; ours checks the bundle's hashes, and runs it once before `load`
is over.
"""

from __future__ import annotations

import argparse
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
from edgevision.bench.pairs import Rounds

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


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=3)


def main() -> int:
    options = parser().parse_args()
    rows: list[Row] = []
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        for net in NETS:
            found = started(net, sides(net, Path(folder)), options.rounds)
            parts[net] = {way: medians(starts) for way, starts in found.items()}
            rows += ratios(net, found)
            print(net, parts[net])
    print(*rows, sep="\n")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds, parts=parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
