"""Runs a bundle over very many frames, and keeps its answers in Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgevision._optional import require
from edgevision.batch.answerer import FOLDER, Answerer
from edgevision.batch.fleet import FleetOptions, Totals, done_run
from edgevision.batch.shards import RunFolder
from edgevision.bundle.files import PathLike
from edgevision.progress import Progress, silent
from edgevision.tasks.places import list_frames


@dataclass(frozen=True, slots=True)
class AnswerOptions(FleetOptions):
    """How answers are kept; see `FleetOptions`.

    Attributes:
        overlays: keep pictures of the answers, too.
    """

    overlays: bool = False


@dataclass(frozen=True, slots=True)
class Answered(Totals):
    """What came of it; see `Totals`.

    Attributes:
        folder: of the Parquet files, one for each shard, in order.
    """

    folder: Path


def answer_data(
    bundle: PathLike,
    data: PathLike,
    out: PathLike,
    options: AnswerOptions | None = None,
    *,
    progress: Progress = silent,
) -> Answered:
    """Run a bundle on the frames of `data`, on as many workers as there are.

    A row has the frame's "key", the answer's "text", its JSON as "answer", "total_ms", and what the
    task says of pixels: "classes" or "depth_mm", a PNG, or "masks", the JSON of COCO's runs. Each
    frame is one of its own: a model with state begins with it.

    Args:
        bundle: the bundle's directory.
        data: see `list_frames`.
        out: folder of the run, seen by every worker.
        options: see `AnswerOptions`.
        progress: told of each shard, with the time that remains.

    Raises:
        SignatureError: the bundle is not one that `trust` takes.
        WrongTaskError: it does not take frames.
        FileReadError: the data cannot be read.
        FileWriteError: the folder holds something else, or is full.
        RunError: too many frames are bad, a shard ends its workers, or the folder's run is of
            another bundle or other data.
        MissingDependencyError: pyarrow or Ray is not installed.
    """
    chosen = options or AnswerOptions()
    opened = chosen.trust.open(bundle)
    require("pyarrow.parquet", extra="parquet")  # before anything is begun
    backend = chosen.backend()
    places = list_frames(data)
    described = {
        "bundle": opened.manifest_sha256,
        "target": chosen.target,
        "overlays": chosen.overlays,
        "frames": len(places),
        "frames_a_shard": chosen.frames_a_shard,
    }

    def worker(folder: RunFolder, token: str) -> Answerer:
        return Answerer(chosen.runner(opened), folder, chosen.max_bad, token, chosen.overlays)

    with done_run(
        chosen, backend, out, described, places, worker, phase="running", progress=progress
    ) as done:
        chosen.trust.keep(opened)
        folder, totals = done.folder.path / FOLDER, done.totals
        return Answered(totals.frames, totals.bad, totals.shards, totals.latencies_ms, folder)
