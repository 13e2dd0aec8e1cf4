"""The verb `run`: a bundle's answers to files, or a generator's pictures."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevision.cli.exits import OK
from edgevision.cli.terminal import print_bad, progress_bar, put_json
from edgevision.cli.verbs import (
    Verbs,
    add_engines,
    add_fleet,
    add_force,
    add_trust,
    fleet_fields,
    verb,
)

if TYPE_CHECKING:
    from edgevision.runtime.model import Model


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    run = verb(verbs, "run", _run, example="run road.ev drive.mp4 --out overlays/", is_watched=True)
    run.add_argument("bundle", type=Path, metavar="BUNDLE")
    run.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="image, folder of images, video, or raw dump; list.txt, .tar or .parquet of images",
    )
    run.add_argument(
        "--out",
        type=Path,
        help="folder of NAME.overlay.jpg; of a generator a picture, .gif or .mp4; of a run that is "
        "shared out the folder that keeps it",
    )
    run.add_argument("--overlays", action="store_true", help="of a shared run: keep pictures, too")
    add_force(run)
    run.add_argument("--seed", type=int, help="first seed of a generator's pictures (default 0)")
    run.add_argument("--count", type=int, help="how many pictures (default 64)")
    run.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_engines(run)
    add_fleet(run)
    add_trust(run)


def _run(options: argparse.Namespace) -> int:
    """Run a bundle on images or a video, or a generator on seeds, and write pictures."""
    if _is_shared(options):
        return _share(options)
    from edgevision.runtime.files.batch import run_files
    from edgevision.runtime.load import load
    from edgevision.tasks.generated import GeneratedDecoder

    opened = load(
        options.bundle,
        device=options.device,
        engines=options.engines,
        require_signature=options.key,
        minimum_version=options.minimum_version,
        expected_name=options.name,
    )
    with opened as model, progress_bar() as progress:
        if isinstance(model.decoder, GeneratedDecoder):
            return _make(model, options)
        if options.source is None or options.seed is not None or options.count is not None:
            raise ValueError(
                f"'{model.manifest.name}' takes frames: give an image, a folder of images or a "
                "video, and neither --seed nor --count"
            )
        done = run_files(model, options.source, options.out, force=options.force, progress=progress)
        explained = model.explain()  # while it is open: what it holds
    document = {
        "explain": explained,
        "frames": [
            {"name": f.name, "resized_from": f.resized_from, **f.answer} for f in done.frames
        ],
        "median_ms": done.median_ms,
        "out": str(options.out) if options.out else None,
    }
    if put_json(options, document):
        return OK
    print(explained)
    for frame in done.frames[:20]:
        print(f"  {frame.name}: {frame.text}")
    if len(done.frames) > 20:
        print(f"  ... and {len(done.frames) - 20} more")
    if sizes := {f.resized_from for f in done.frames if f.resized_from}:
        print(f"resized to the model's frame from {', '.join(f'{h}x{w}' for h, w in sizes)}")
    print(f"{len(done.frames)} frames, median {done.median_ms:.1f} ms a frame")
    if options.out:
        print(f"pictures: {options.out}")
    return OK


_ALONE = ("seed", "count", "force")
_SHARED = ("resume", "max_bad", "shard", "target", "overlays")


def _is_shared(options: argparse.Namespace) -> bool:
    """Tell a run over shards from one over files.

    Raises:
        ValueError: a flag of the one is given with the other.
    """
    from edgevision.tasks.places import LISTS

    is_list = options.source is not None and options.source.suffix in LISTS
    is_shared = is_list or options.workers is not None or options.ray is not None
    reason = "not for frames that are shared out" if is_shared else "only with --workers N"
    for name in _ALONE if is_shared else _SHARED:
        value = getattr(options, name)
        if value is not None and value is not False:  # 0 is given
            raise ValueError(f"--{name.replace('_', '-')}: {reason}")
    if is_shared and (options.source is None or options.out is None):
        raise ValueError("frames that are shared out: give both where they lie and --out DIR")
    return is_shared


def _share(options: argparse.Namespace) -> int:
    from edgevision.batch.answers import AnswerOptions, answer_data

    chosen = AnswerOptions(overlays=options.overlays, **fleet_fields(options))
    with progress_bar() as progress:
        done = answer_data(options.bundle, options.source, options.out, chosen, progress=progress)
    times = done.named_latencies_ms
    document = {
        "frames": done.frames,
        "bad": list(done.bad),
        "latency_ms": times,
        "shards": [asdict(shard) for shard in done.shards],
        "answers": str(done.folder),
    }
    if put_json(options, document):
        return OK
    latencies = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
    print(f"{done.frames} frames in {len(done.shards)} shards; one inference: {latencies}")
    print_bad(done.bad)
    print(f"answers: {done.folder}")
    return OK


def _make(model: Model[Any], options: argparse.Namespace) -> int:
    from edgevision.runtime.files.generate import make_pictures

    if options.source is not None:
        raise ValueError(
            f"'{model.manifest.name}' makes pictures of seeds and takes no '{options.source}': "
            "give --seed and --count"
        )
    seed = 0 if options.seed is None else options.seed
    count = 64 if options.count is None else options.count
    made = make_pictures(model, seed, count, options.out, force=options.force)
    document = {
        "explain": model.explain(),
        "count": made.count,
        "batch": made.batch,
        "images_per_s": made.images_per_s,
        "out": str(options.out) if options.out else None,
    }
    if put_json(options, document):
        return OK
    print(model.explain())
    print(
        f"{made.count} pictures of the seeds from {seed} on, {made.images_per_s:.0f} a second in "
        f"batches of {made.batch}"
    )
    if options.out:
        print(f"pictures: {options.out}")
    return OK
