"""How long a build takes, part by part, and how large what it makes is.

    python -m benchmarks.build_time [--json-file FILE] [--beside N]

Each shipped net is built in INT8 for ONNX Runtime and for TensorRT-RTX, which builds without a GPU:
for the GPUs of three generations at once and for only one. Then the bundle is asked for the same
engines again, which are in the cache. The parts are those that `edgevision.build` reports; engines
include the start of their process. What is imported on the first build is imported before; torch
has one thread.

With --beside only: INT8 beside ONNX Runtime's `quantize_static` by min-max, on one graph and the
same frames, from the FP32 graph to the INT8 one. The figure is processor time, which other programs
on the machine change least; the ways take turns.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

import edgevision
from benchmarks.script import arguments, record
from edgevision.bundle.targets import get_target
from edgevision.engines.cache import EngineCache
from edgevision.engines.registry import unavailable
from edgevision.engines.summary import BuildSummary
from edgevision.export.adapters.adapter import Feeds, ModelAdapter
from edgevision.export.graph.capture import serialized
from edgevision.export.precision.int8 import to_int8
from edgevision.export.precision.quantizer import RECOVERY
from edgevision.export.samples import calibration_samples
from edgevision.export.source import resolve
from edgevision.export.zoo import shipped_photos, zoo_entry

NETS = ("unet-camvid", "maskrcnn-digits", "captioner-digits", "gan-digits")
RTX = ("rtx", "rtx-ampere")
BEFORE = "load and reference"
PARTS = {
    BEFORE: BEFORE,
    "capturing": "capture",
    "converting to FP16": "to FP16",
    "calibrating": "to INT8",
    "checking parity": "parity",
}
"""What a build reports, and what it is called here; all else is engines, timed by themselves."""


@dataclass
class Parts:
    """A build's progress, as the seconds of each phase until the next one is reported."""

    seconds: dict[str, float] = field(default_factory=dict)
    phase: str = BEFORE
    since: float = field(default_factory=perf_counter)

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Note that `phase` is at work."""
        now = perf_counter()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now

    def told(self) -> dict[str, float]:
        """Return the parts that are not engines."""
        return {title: self.seconds.get(phase, 0.0) for phase, title in PARTS.items()}


def calibration(net: str) -> Path | None:
    """Return the frames in the repository that fit the net; a generator takes seeds."""
    entry = zoo_entry(net)
    if net.startswith("gan"):
        return None
    return entry.samples / "images" if entry.samples else shipped_photos()


def engines() -> list[str]:
    """Return the targets whose engines can be built here."""
    return [name for name in RTX if unavailable(get_target(name)) is None]


def timed(net: str, out: Path, cache: EngineCache) -> tuple[dict[str, Any], BuildSummary]:
    """Build once, and return how long what took."""
    parts, start = Parts(), perf_counter()
    made = edgevision.build(
        net,
        out,
        precision="int8",
        calibration=calibration(net),
        targets=["host-cpu", *engines()],
        cache=cache,
        progress=parts,
    )
    whole = perf_counter() - start
    return {"whole": whole, "parts": parts.told(), "engines": dict(made.seconds)}, made


def row(net: str, folder: Path) -> dict[str, Any]:
    """Build a net and its engines again; return the seconds of both, the bytes of what was made."""
    cache = EngineCache(folder / "cache")
    first, made = timed(net, folder / "net.ev", cache)
    start = perf_counter()
    cached = edgevision.finish(folder / "net.ev", engines(), cache=cache) if engines() else None
    again_s = perf_counter() - start
    if cached and cached.cached != set(engines()):
        raise SystemExit(f"{net}: the cache gave {set(cached.cached)}, not {engines()}")
    manifest = made.bundle.manifest
    sizes = {entry.path: entry.size_bytes for entry in manifest.files}
    (stage,) = manifest.stages
    artifacts = {a.target: sizes[a.path] for a in stage.artifacts if a.path is not None}
    return {
        "net": net,
        "calibrated_on": int(manifest.provenance["calibration_count"]),
        "first_s": first,
        "again_s": again_s if cached else None,
        "bytes": {
            "weights": zoo_entry(net).weights.stat().st_size,
            "graph": sizes[stage.graph],
            **artifacts,
            "bundle": sum(sizes.values()),
        },
    }


BESIDE, FRAMES = "unet-camvid", 64


def frames(adapter: ModelAdapter) -> list[Feeds]:
    """Return as many frames as calibration takes: the repository's photos, shifted."""
    photos = list(calibration_samples(adapter, shipped_photos()))
    shifted = (
        {name: np.roll(array, 7 * (i // len(photos)), axis=-2) for name, array in feeds.items()}
        for i, feeds in zip(range(FRAMES), itertools.cycle(photos), strict=False)
    )
    return list(shifted)


def beside(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the processor time in seconds of each way to the INT8 graph, round by round."""
    quantization = importlib.import_module("onnxruntime.quantization")
    adapter = resolve(
        BESIDE, task=None, weights=None, size=None, classes=None, front={}, shapes=None
    ).adapter
    model, feeds = adapter.to_onnx(), frames(adapter)
    path = folder / "fp32.onnx"
    path.write_bytes(serialized(model))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    def static() -> None:
        quantization.quantize_static(
            path,
            folder / "int8.onnx",
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )

    ways: dict[str, Callable[[], object]] = {
        "edgevision, default": lambda: to_int8(model, feeds),
        "edgevision, minmax, no recovery": lambda: to_int8(
            model, feeds, method="minmax", recover=(), min_snr_db=-math.inf
        ),
        "edgevision, with learnt rounding": lambda: to_int8(model, feeds, recover=RECOVERY),
        "quantize_static, minmax": static,
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            start = process_time()
            work()
            found[way].append(process_time() - start)
            print(way, found[way][-1], flush=True)
    return found


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--beside", type=int, metavar="N", help="only INT8 beside others, N rounds")
    return parser


def main() -> int:
    options = parser().parse_args()
    # Its threads wait for each other by spinning: beside other work, seconds become minutes.
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if options.beside:
            seconds = beside(Path(folder), options.beside)
            if options.json_file:
                record(options.json_file, frames=FRAMES, net=BESIDE, seconds=seconds)
            return 0
        edgevision.build("gan-digits", Path(folder) / "imports.ev", precision="int8")
        for net in NETS:
            place = Path(folder) / net
            place.mkdir()
            rows.append(row(net, place))
            print(rows[-1], flush=True)
    if options.json_file:
        record(options.json_file, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
