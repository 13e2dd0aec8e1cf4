"""What sharing frames out costs and gives: a plain loop, one worker, two, and Ray with two.

    python -m benchmarks.fleet [--json-file FILE] [--rounds 6] [--frames 400]

The plain loop, one worker and each of two have an engine of one thread: a core each. A round has
every way once, in random order; a way's time is from when each worker has done a shard to the last
one, so that starting is left out, and it is told beside. What 8 to 1,000 workers would do is
simulated from the measured times, with the assumptions that are printed beside it: it was run on no
cluster. Two minutes, and one more where Ray is installed.
"""

from __future__ import annotations

import heapq
import importlib.util
import random
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.graphs import busy_frame
from benchmarks.rows import keep, row
from benchmarks.script import arguments
from edgevision._optional import require
from edgevision.batch import Runner
from edgevision.batch.score import ScoreOptions, score_data
from edgevision.batch.shards import identify
from edgevision.bench.pairs import Rounds
from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.metrics.metric import metric_for
from edgevision.metrics.tally import Tally
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.places import list_frames
from edgevision.tasks.task import get_task

SIZE, REPEATS = (144, 192), 14
SHARD = 50
MAX_OVERHEAD, MIN_GAIN = 1.05, 1.7
WORKERS = (8, 32, 100, 300, 1000)
FRAMES, USUAL_SHARD = 1_000_000, 250
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


class Clock:
    """A progress callback that notes when how many frames were done."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.done: list[tuple[float, int]] = []

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Note it."""
        self.done.append((perf_counter(), done))

    def frame_ms(self, workers: int) -> float:
        """Return a frame's milliseconds once each worker has done a shard."""
        (start, before), (end, after) = self.done[workers], self.done[-1]
        return (end - start) / (after - before) * 1e3


def scored(bundle: Path, data: Path, way: ScoreOptions) -> Clock:
    """Score as the command does."""
    clock = Clock()
    score_data(bundle, data, None, way, progress=clock)
    return clock


def plain_loop(bundle: Path, data: Path) -> tuple[Clock, dict[str, list[float]]]:
    """Score as anybody would write it; also return each frame's milliseconds in each part."""
    clock = Clock()
    runner = Runner(bundle)
    model = runner.model
    metric = metric_for(get_task(model.manifest.task), model.decoder)
    truths, tally = metric.truths(data), Tally()
    parts: dict[str, list[float]] = {"read": [], "infer": [], "score": []}
    for number, (name, path) in enumerate(truths.pictures.items()):
        if number % SHARD == 0:
            clock("", number, len(truths.pictures))
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
    clock("", len(truths.pictures), len(truths.pictures))
    metric.score("net", tally)
    runner.close()
    return clock, parts


def serial_ms(bundle: Path, data: Path) -> dict[str, float]:
    """Return what the command does alone: of a frame when it lists them, of a shard at the end."""
    opened = Bundle.open(bundle)
    decoder = bundle_decoder(opened.manifest, opened.read)
    began = perf_counter()
    truths = metric_for(get_task(opened.manifest.task), decoder).truths(data)
    places = list_frames(data, truths.pictures)
    identify([], places, truths.sources())
    listed_ms = (perf_counter() - began) / len(places) * 1e3
    tally, merged = Tally(), Tally()
    tally.count("matrix", np.ones((20, 21)))
    tally.write("run", 0, "x" * 300)
    saved, began = tally.to_bytes(), perf_counter()
    for _ in range(200):
        merged.merge(Tally.from_bytes(saved))
    return {"listing a frame": listed_ms, "merging a shard": (perf_counter() - began) / 200 * 1e3}


def simulate(workers: int, parts: dict[str, list[float]], serial: dict[str, float]) -> float:
    """Return the seconds that so many workers take for `FRAMES`, each on a core or GPU of its own.

    Shards are taken as workers get free. A shard's photos come from one storage that all share, one
    shard after the other, while the worker is at the frames that it has; its time is of as many
    measured frames, drawn at random.
    """
    rng = np.random.default_rng(workers)
    frame_ms = np.sum([*parts.values()], axis=0)
    shards = FRAMES // USUAL_SHARD
    spent_s = rng.choice(frame_ms, (shards, USUAL_SHARD)).sum(1) / 1e3
    reading_s = USUAL_SHARD * PHOTO_BYTES / STORAGE_BYTES_PER_S
    began_s = FRAMES * serial["listing a frame"] / 1e3
    free_s, storage_s = [began_s] * workers, began_s
    for own_s in spent_s:
        start_s = heapq.heappop(free_s)
        storage_s = max(storage_s, start_s) + reading_s
        heapq.heappush(free_s, max(start_s + own_s, storage_s))
    return max(free_s) + shards * serial["merging a shard"] / 1e3


def main() -> int:
    parser = arguments(__doc__, rounds=6)
    parser.add_argument("--frames", type=int, default=400)
    options = parser.parse_args()
    if options.rounds < 2 or options.frames < 4 * SHARD:
        parser.error(f"an interval needs 2 rounds, and a round {4 * SHARD} frames or more")
    usual = ScoreOptions(frames_a_shard=SHARD, cpu_threads=1)
    ways = {"one worker": usual, "two workers": replace(usual, workers=2)}
    if importlib.util.find_spec("ray") is not None:
        ways["Ray, two workers"] = replace(usual, workers=2, ray="local")
    parts: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {"plain loop": [], **{name: [] for name in ways}}
    starts: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "busy.ev")
        data = make_frames(Path(folder) / "frames", options.frames)
        rng = random.Random(0)
        for _ in range(options.rounds):
            for name in rng.sample([*times], len(times)):
                if name == "plain loop":
                    clock, parts = plain_loop(bundle, data)
                else:
                    clock = scored(bundle, data, ways[name])
                    starts[name].append(clock.done[1][0] - clock.began)
                times[name].append(clock.frame_ms(max(1, ways.get(name, usual).workers)))
        serial = serial_ms(bundle, data)
    found = {name: np.array(kept) * 1e6 for name, kept in times.items()}
    rounds = Rounds(found, settled=True)
    slower = rounds.ratio("one worker", over="plain loop")
    rows = [row("one worker over the plain loop", slower, MAX_OVERHEAD, rounds)]
    for name in [*ways][1:]:
        gain = rounds.ratio("plain loop", over=name)
        bar = MIN_GAIN if name == "two workers" else None
        rows.append(row(f"the plain loop over {name}", gain, bar, rounds, at_least=True))
    medians = {part: statistics.median(kept) for part, kept in parts.items()}
    print("a frame of the plain loop: " + ", ".join(f"{k} {v:.2f} ms" for k, v in medians.items()))
    print(*rows, sep="\n")
    for name, kept in starts.items():
        print(f"{name}: the first shard after {statistics.median(kept):.1f} s")
    print(
        f"simulated, {FRAMES} frames in shards of {USUAL_SHARD}: a core or GPU for each worker, "
        f"frames as they were measured here, one storage of {STORAGE_BYTES_PER_S / 1e9:g} GB/s, "
        f"{PHOTO_BYTES / 1e3:g} kB a photo, no worker dies; alone the command does: "
        + ", ".join(f"{what} {ms:.3f} ms" for what, ms in serial.items())
    )
    alone_s = simulate(1, parts, serial)
    simulated = []
    for workers in WORKERS:
        spent_s = simulate(workers, parts, serial)
        simulated.append({"workers": workers, "seconds": spent_s, "gain": alone_s / spent_s})
        print(f"{workers:6} workers: {spent_s:8.0f} s, {alone_s / spent_s:6.1f} x one")
    reading = STORAGE_BYTES_PER_S / PHOTO_BYTES * sum(medians.values()) / 1e3
    print(f"reading is the limit from {reading:.0f} workers on")
    if options.json_file is not None:
        keep(
            options.json_file,
            rows,
            rounds=options.rounds,
            parts_ms=medians,
            frame_ms=times,
            starts_s=starts,
            simulated=simulated,
            assumed={
                "frames": FRAMES,
                "frames_a_shard": USUAL_SHARD,
                "storage_bytes_per_s": STORAGE_BYTES_PER_S,
                "photo_bytes": PHOTO_BYTES,
                "serial_ms": serial,
            },
        )
    return 0 if all(each.passed for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
