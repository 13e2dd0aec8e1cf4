"""Scores very many frames: shares them out, waits, and merges what they add up to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.batch.fleet import Done, FleetOptions, Totals, done_run
from edgevision.batch.scorer import AGAINST, APART, SHOWN, Scorer
from edgevision.batch.shards import RunFolder
from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import PathLike
from edgevision.errors import RunError
from edgevision.metrics.metric import Metric, Score, metric_for
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress, silent
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.outputs import MARK
from edgevision.tasks.places import Place, list_frames
from edgevision.tasks.task import get_task


@dataclass(frozen=True, slots=True)
class ScoreOptions(FleetOptions):
    """How frames are scored; see `FleetOptions`.

    Attributes:
        against: a bundle of the same task; both are scored, and held against each other.
        labels: the folder of the labels; the data themselves if they are a folder, by default.
        use_labels: look for labels at all; without, there must be `against`.
    """

    against: PathLike | None = None
    labels: PathLike | None = None
    use_labels: bool = True

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: one is out of its range, or there is nothing to score by.
        """
        FleetOptions.__post_init__(self)
        if not self.use_labels and self.against is None:
            raise ValueError("without labels there is nothing to score by: give --against BUNDLE")


@dataclass(frozen=True, slots=True)
class ScoreReport(Totals):
    """What came out of a run; see `Totals`.

    Attributes:
        scores: of the bundle, and of the one that it is held against.
        apart: mean of how far the two bundles' answers are apart, 0 to 1; None without a second.
        frames_apart: frames whose answers are not the same.
        most_apart: (number of the frame, how far apart) of those that differ most.
        against: how often the second bundle said a class (row) where the first said another.
    """

    scores: tuple[Score, ...]
    apart: float | None
    frames_apart: int
    most_apart: tuple[tuple[int, float], ...]
    against: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A run's report, the places of its frames, and the bundles: two, if one was held against."""

    report: ScoreReport
    places: Sequence[Place]
    bundles: tuple[Bundle, ...]


def score_data(
    bundle: PathLike,
    data: PathLike,
    out: PathLike | None = None,
    options: ScoreOptions | None = None,
    *,
    progress: Progress = silent,
) -> ScoredRun:
    """Score a bundle on the frames of `data`, on as many workers as there are.

    The figures are the same, digit for digit, however the frames were shared out, and however often
    the run was ended and resumed. Where several processes score, the script that calls this needs
    `if __name__ == "__main__":`, as `multiprocessing` says.

    Args:
        bundle: the bundle's directory.
        data: see `list_frames`; a labelled folder is what `build --evaluate` takes.
        out: folder of the run, seen by every worker; without one nothing is kept.
        options: see `ScoreOptions`.
        progress: told of each shard, with the time that remains.

    Raises:
        ValueError: the task has no metric.
        SignatureError: a bundle is not one that `trust` takes.
        FileReadError: the data or labels are not what the metric needs.
        FileWriteError: the folder holds something else, or is full.
        RunError: too many frames are bad, a shard ends its workers, or the folder's run is of
            another bundle or other data.
        MissingDependencyError: Ray is not installed.
    """
    chosen = options or ScoreOptions()
    backend = chosen.backend()  # first, for without the package nothing is worth beginning
    opened = chosen.trust.open(bundle, is_measured=True)
    held = None if chosen.against is None else _held(opened, chosen)
    metric = _metric(opened)
    labels = _labels(data, chosen)
    home = None if labels is None else os.path.abspath(labels)
    truths = None if labels is None else metric.truths(labels)
    is_data = truths is not None and _is_same(labels, data)
    places = list_frames(data, truths.pictures if truths is not None and is_data else None)
    described = {
        "bundle": opened.manifest_sha256,
        "against": None if held is None else held.manifest_sha256,
        "target": chosen.target,
        "labels": home,
        "frames": len(places),
        "frames_a_shard": chosen.frames_a_shard,
    }

    def worker(folder: RunFolder, token: str) -> Scorer:
        return Scorer(
            chosen.runner(opened),
            folder,
            chosen.max_bad,
            token,
            None if held is None else chosen.runner(held),
            home,
        )

    with done_run(
        chosen,
        backend,
        out,
        described,
        places,
        worker,
        phase="scoring",
        progress=progress,
        sources=[] if truths is None else [*truths.sources()],
    ) as done:
        reference = Tally() if held is None else done.folder.merged(done.shared, AGAINST)
        report = _report(opened, held, metric, done, reference)
        if out is not None:
            content = {"remark": MARK, **report_fields(report)}
            done.folder.write("report.json", (json.dumps(content, indent=1) + "\n").encode())
    return ScoredRun(report, places, (opened,) if held is None else (opened, held))


def report_fields(report: ScoreReport) -> dict[str, object]:
    """Return a report as JSON fields."""
    return {
        "scores": [
            {"form": s.form, "figures": s.figures(), "per_class": _defined(s.per_class())}
            for s in report.scores
        ],
        "frames": report.frames,
        "bad": list(report.bad),
        "latency_ms": report.named_latencies_ms,
        "apart": report.apart,
        "frames_apart": report.frames_apart,
        "most_apart": [list(pair) for pair in report.most_apart],
        "against": None if report.against is None else report.against.tolist(),
        "shards": [
            {**asdict(shard), "frames_per_s": shard.frames / shard.seconds}
            for shard in report.shards
        ],
    }


def _defined(values: Sequence[float]) -> list[float | None]:
    return [None if value != value else value for value in values]


def _metric(bundle: Bundle) -> Metric:
    task = get_task(bundle.manifest.task)
    return metric_for(task, bundle_decoder(bundle.manifest, bundle.read))


def _labels(data: PathLike, options: ScoreOptions) -> PathLike | None:
    if not options.use_labels:
        return None
    if options.labels is not None:
        return options.labels
    if Path(data).is_dir():
        return data
    raise ValueError(
        f"'{data}' has no labels beside it: give --labels FOLDER, or --no-labels with --against"
    )


def _is_same(one: PathLike | None, other: PathLike) -> bool:
    return one is not None and Path(one).resolve() == Path(other).resolve()


def _held(bundle: Bundle, options: ScoreOptions) -> Bundle:
    """Return the bundle that another is held against."""
    assert options.against is not None  # asked before
    held = options.trust.open(options.against, is_measured=True)
    if held.manifest.task != bundle.manifest.task:
        raise RunError(
            f"'{bundle.root}' is a bundle of the task {bundle.manifest.task}, "
            f"'{held.root}' of {held.manifest.task}: give two bundles of one task"
        )
    return held


def _report(
    bundle: Bundle, held: Bundle | None, metric: Metric, done: Done, reference: Tally
) -> ScoreReport:
    tally, totals, names = done.tally, done.totals, [bundle.root.name]
    if held is not None:
        names.append(held.root.name)
    names = names if len(set(names)) == len(names) else ["candidate", "reference"]
    most = tally.rows("apart", APART)[:SHOWN]
    return ScoreReport(
        scores=tuple(
            metric.score(name, kept) for name, kept in zip(names, (tally, reference), strict=False)
        ),
        frames=totals.frames,
        bad=totals.bad,
        shards=totals.shards,
        latencies_ms=totals.latencies_ms,
        apart=tally.total("apart") / max(1, totals.frames) if held is not None else None,
        frames_apart=tally.number("frames apart"),
        most_apart=tuple((int(row["frame"]), 0.0 - float(row["closeness"])) for row in most),
        against=metric.against(tally),
    )
