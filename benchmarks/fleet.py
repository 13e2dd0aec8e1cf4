"""What sharing frames out costs and gives: a plain loop, one worker, two, and Ray with two.

    python -m benchmarks.fleet [--json-file FILE] [--rounds 3] [--frames 400]

Each way scores as many frames, and twice as many; the difference is what a frame costs once all is
started, and a ratio is of rounds side by side. Each worker's engine has one thread. What 8 to 1,000
workers would do is simulated from the measured times, with the assumptions that are printed beside
it: it was run on no cluster.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.graphs import busy_frame
from benchmarks.script import arguments, record
from edgevision._optional import require
from edgevision.batch import Runner
from edgevision.batch.score import ScoreOptions, score_data
from edgevision.bundle.directory import BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.metrics.metric import metric_of
from edgevision.metrics.tally import Tally
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.task import get_task

SIZE, REPEATS = (144, 192), 24
SHARD = 100
MAX_OVERHEAD, MIN_GAIN = 1.05, 1.7
WORKERS = (8, 32, 100, 300, 1000)
STORAGE_BYTES_PER_S = 1e9
PHOTO_BYTES = 400e3


def make_bundle(path: Path) -> Path:
    """Write a bundle of a net of 10 ms or more."""
    graph = busy_frame(*SIZE, REPEATS)
    frame = TensorSpec("x", DType.UINT8, (1, *SIZE, 3))
    classes = TensorSpec("y", DType.UINT8, (1, *SIZE))
    artifact = Artifact("host-cpu", ORT, "stages/main/host-cpu.onnx", version="1")
    named = [{"name": f"class {k}", "color": "#808080"} for k in range(8)]
    with BundleWriter(path) as writer:
        writer.add("stages/main/model.onnx", graph)
        writer.add("stages/main/host-cpu.onnx", graph)
        zeros = {"y": np.zeros((1, *classes.shape), np.uint8)}
        writer.add_golden("main", {"x": np.zeros((1, *frame.shape), np.uint8)}, zeros)
        stage = Stage(
            "main", "stages/main/model.onnx", (frame,), (classes,), {"y": Tolerance()},
            artifacts=(artifact,),
        )  # fmt: skip
        settings = {"classes": named, "channel_order": "rgb"}
        writer.publish(Manifest("busy", "semantic", "fp32", settings, (stage,), ()))
    return path


def make_frames(folder: Path, count: int) -> Path:
    """Write labelled frames of noise."""
    image, rng = require("PIL.Image", extra="media"), np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        frame = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        image.fromarray(frame).save(folder / "images" / f"{number:06d}.jpg")
        labels = rng.integers(0, 8, SIZE).astype(np.uint8)
        image.fromarray(labels).save(folder / "labels" / f"{number:06d}.png")
    return folder


def plain_loop(bundle: Path, data: Path) -> dict[str, float]:
    """Score as anybody would write it; return a frame's median milliseconds in each part."""
    runner = Runner(bundle)
    model = runner.model
    metric = metric_of(get_task(model.manifest.task), model.decoder)
    truths, tally = metric.truths(data), Tally()
    parts: dict[str, list[float]] = {"read": [], "infer": [], "score": []}
    for number, (name, path) in enumerate(truths.pictures.items()):
        times = [perf_counter()]
        photo = read_image(path)
        truth, frame = truths.of(name, photo.shape[:2]), resize(photo, SIZE)
        times.append(perf_counter())
        found = runner.predict(frame)
        times.append(perf_counter())
        metric.add(tally, number, truth, found, None)
        times.append(perf_counter())
        for kept, spent in zip(parts.values(), np.diff(times), strict=True):
            kept.append(spent * 1e3)
    metric.score("net", tally)
    runner.close()
    return {part: statistics.median(times) for part, times in parts.items()}


def seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def simulate(parts: dict[str, float], shard_s: float) -> list[dict[str, object]]:
    """Return what more workers would do: each has a core or a GPU, all share one storage."""
    rows: list[dict[str, object]] = []
    for workers in WORKERS:
        limits = {
            "workers": workers / (sum(parts.values()) / 1e3),
            "reading": STORAGE_BYTES_PER_S / PHOTO_BYTES,
            "merging": 250 / shard_s,
        }
        limit = min(limits, key=lambda name: limits[name])
        rows.append({"workers": workers, "frames_per_s": round(limits[limit]), "limit": limit})
    return rows


def main() -> int:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--frames", type=int, default=400)
    options = parser.parse_args()
    usual = ScoreOptions(frames_a_shard=SHARD)
    ways = {"one worker": usual, "two workers": replace(usual, workers=2)}
    if importlib.util.find_spec("ray") is not None:
        ways["Ray, two workers"] = replace(usual, workers=2, ray="local")
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "busy.ev")
        few = make_frames(Path(folder) / "few", options.frames)
        many = make_frames(Path(folder) / "many", 2 * options.frames)
        parts = plain_loop(bundle, few)

        def frame_ms(work: Callable[[Path], object]) -> float:
            spent = [seconds(lambda data=data: work(data)) for data in (few, many)]
            return (spent[1] - spent[0]) / options.frames * 1e3

        rounds: dict[str, list[float]] = {"plain loop": [], **{name: [] for name in ways}}
        for _ in range(options.rounds):
            rounds["plain loop"].append(frame_ms(lambda data: plain_loop(bundle, data)))
            for name, way in ways.items():
                rounds[name].append(
                    frame_ms(lambda data, way=way: score_data(bundle, data, None, way))
                )
        merged = Tally()
        merged.count("matrix", np.ones((20, 21)))
        saved = merged.to_bytes()
        shard_s = seconds(lambda: [merged.merge(Tally.from_bytes(saved)) for _ in range(200)]) / 200
    ratios = {
        name: statistics.median(
            plain / own for plain, own in zip(rounds["plain loop"], times, strict=True)
        )
        for name, times in rounds.items()
    }
    print("a frame of the plain loop: " + ", ".join(f"{k} {v:.2f} ms" for k, v in parts.items()))
    for name, times in rounds.items():
        print(f"{name:18} {statistics.median(times):7.2f} ms a frame, {ratios[name]:.2f} x")
    simulated = simulate(parts, shard_s)
    print(
        f"simulated: one storage of {STORAGE_BYTES_PER_S / 1e9:g} GB/s, {PHOTO_BYTES / 1e3:g} kB a "
        f"photo, a core or GPU for each worker, shards of 250 merged in {shard_s * 1e3:.2f} ms"
    )
    for row in simulated:
        print("{workers:6} workers {frames_per_s:7} frames a second, limit: {limit}".format(**row))
    passed = 1 / ratios["one worker"] <= MAX_OVERHEAD and ratios["two workers"] >= MIN_GAIN
    if options.json_file is not None:
        record(
            options.json_file,
            parts_ms=parts,
            frame_ms=rounds,
            ratios=ratios,
            simulated=simulated,
            assumed={
                "storage_bytes_per_s": STORAGE_BYTES_PER_S,
                "photo_bytes": PHOTO_BYTES,
                "merge_s": shard_s,
            },
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
