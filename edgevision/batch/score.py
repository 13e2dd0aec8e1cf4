"""Scores very many frames: shares them out, waits, and merges what they add up to."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.batch.backends.backend import open_backend
from edgevision.batch.frames import Place, Shard, list_frames
from edgevision.batch.runner import Runner
from edgevision.batch.scorer import AGAINST, APART, SHOWN, Scorer, refusal
from edgevision.batch.shards import RunFolder, divide, identify, shard_reports
from edgevision.bundle.directory import Bundle
from edgevision.bundle.trust import Trust
from edgevision.errors import RunError
from edgevision.metrics.latency import latency_ms
from edgevision.metrics.metric import Metric, Score, metric_of
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress, silent
from edgevision.tasks.decoders import decoder_of
from edgevision.tasks.outputs import MARK
from edgevision.tasks.task import get_task

PathLike = str | os.PathLike[str]

_LATENCIES = (0.5, 0.99)
_ANYBODY = Trust()


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How frames are scored.

    Attributes:
        against: a bundle of the same task; both are scored, and held against each other.
        labels: the folder of the labels; the data themselves if they are a folder, by default.
        use_labels: look for labels at all; without, there must be `against`.
        workers: how many, each with a bundle of its own.
        ray: address of a Ray cluster, "local" for one that is started here; None for processes of
            this machine, or for this very process if there is one worker.
        frames_a_shard: frames that are scored, written and lost at once.
        resume: go on with the run in the folder.
        max_bad: frames that may be passed over.
        device: see `edgevision.load`.
        target: see `edgevision.load`.
        engines: see `edgevision.load`.
        cpu_threads: of each worker's engine on a CPU.
        trust: what is asked of both bundles, here and by every worker.
    """

    against: PathLike | None = None
    labels: PathLike | None = None
    use_labels: bool = True
    workers: int = 1
    ray: str | None = None
    frames_a_shard: int = 250
    resume: bool = False
    max_bad: int = 0
    device: str = "auto"
    target: str | None = None
    engines: PathLike | None = None
    cpu_threads: int = 1
    trust: Trust = _ANYBODY

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: one is out of its range, or there is nothing to score by.
        """
        for name, least in (("workers", 1), ("frames_a_shard", 1), ("max_bad", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: got {value}, expected {least} or more")
        if not self.use_labels and self.against is None:
            raise ValueError("without labels there is nothing to score by: give --against BUNDLE")

    def runner(self, bundle: PathLike) -> Runner:
        """Return what runs a bundle so, in whichever folder a worker is."""
        return Runner(
            os.path.abspath(bundle),
            device=self.device,
            target=self.target,
            engines=None if self.engines is None else os.path.abspath(self.engines),
            cpu_threads=self.cpu_threads,
            trust=replace(self.trust, keys=tuple(map(os.path.abspath, self.trust.keys))),
        )


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a worker reported of a shard.

    Attributes:
        number: of the shard.
        frames: that were scored.
        bad: that were passed over.
        seconds: that it took.
        target: whose engine ran.
        worker: number of the process.
        resident_mb: memory of the process afterwards; None where the system does not say.
    """

    number: int
    frames: int
    bad: int
    seconds: float
    target: str
    worker: int
    resident_mb: float | None


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """What came out of a run.

    Attributes:
        scores: of the bundle, and of the one that it is held against.
        frames: that were scored.
        bad: why frames were passed over, in order.
        shards: in order.
        latencies_ms: of one inference, by share of the frames, e.g. 0.99.
        apart: mean of how far the two bundles' answers are apart, 0 to 1; None without a second.
        frames_apart: frames whose answers are not the same.
        most_apart: (number of the frame, how far apart) of those that differ most.
        against: how often the second bundle said a class (row) where the first said another.
    """

    scores: tuple[Score, ...]
    frames: int
    bad: tuple[str, ...]
    shards: tuple[ShardReport, ...]
    latencies_ms: Mapping[float, float]
    apart: float | None
    frames_apart: int
    most_apart: tuple[tuple[int, float], ...]
    against: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A run's report, and the places of its frames."""

    report: ScoreReport
    places: Sequence[Place]


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
    # First, for without the package nothing is worth beginning.
    one = "here" if chosen.workers == 1 else "processes"
    backend = open_backend("ray" if chosen.ray else one, chosen.workers, chosen.ray)
    opened = chosen.trust.open(bundle, is_measured=True)
    metric = _metric(opened)
    labels = _labels(data, chosen)
    truths = None if labels is None else metric.truths(labels)
    is_data = truths is not None and _is_same(labels, data)
    places = list_frames(data, truths.pictures if truths is not None and is_data else None)
    sources = [] if truths is None else truths.sources()
    described = _described(opened, chosen, labels, len(places))
    shards = divide(places, chosen.frames_a_shard)
    with _folder(out) as path:
        folder = RunFolder(path, identify([*described.items()], places, sources))
        folder.begin(described, resume=chosen.resume)
        scorer = Scorer(
            chosen.runner(bundle),
            None if chosen.against is None else chosen.runner(chosen.against),
            None if labels is None else os.path.abspath(labels),
            folder,
            chosen.max_bad,
            secrets.token_hex(4),
        )
        done = {shard.number: reported for shard in shards if (reported := folder.reported(shard))}
        bad = sum(reported["bad"] for reported in done.values())
        _check_bad(bad, chosen.max_bad)
        frames = sum(len(shard.places) for shard in shards if shard.number in done)
        clock = _Remaining(progress, len(places), frames, chosen.workers)
        todo = [shard for shard in shards if shard.number not in done]
        with contextlib.closing(backend.run(scorer, todo)) as outcomes:
            for outcome in outcomes if todo else ():
                if outcome.error is not None:
                    raise outcome.error
                bad += outcome.bad
                _check_bad(bad, chosen.max_bad)
                clock.advance(outcome.frames)
        tally = folder.merged(shards)
        reference = folder.merged(shards, AGAINST) if chosen.against is not None else Tally()
        report = _report(opened, chosen, metric, tally, reference)
        _check_whole(report, shards)
        if out is not None:
            content = {"remark": MARK, **report_fields(report)}
            folder.write("report.json", (json.dumps(content, indent=1) + "\n").encode())
    return ScoredRun(report, places)


def report_fields(report: ScoreReport) -> dict[str, object]:
    """Return a report as JSON fields."""
    return {
        "scores": [
            {"form": s.form, "figures": s.figures(), "per_class": _defined(s.per_class())}
            for s in report.scores
        ],
        "frames": report.frames,
        "bad": list(report.bad),
        "latency_ms": {f"p{share * 100:g}": ms for share, ms in report.latencies_ms.items()},
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
    return metric_of(task, decoder_of(bundle.manifest, bundle.read))


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


def _described(
    bundle: Bundle, options: ScoreOptions, labels: PathLike | None, frames: int
) -> dict[str, Any]:
    """Return what the figures depend on beside the frames themselves."""
    other = None
    if options.against is not None:
        held = options.trust.open(options.against, is_measured=True)
        if held.manifest.task != bundle.manifest.task:
            raise RunError(
                f"'{bundle.root}' is a bundle of the task {bundle.manifest.task}, "
                f"'{held.root}' of {held.manifest.task}: give two bundles of one task"
            )
        other = held.manifest_sha256
    return {
        "bundle": bundle.manifest_sha256,
        "against": other,
        "target": options.target,
        "labels": None if labels is None else os.path.abspath(labels),
        "frames": frames,
        "frames_a_shard": options.frames_a_shard,
    }


@contextlib.contextmanager
def _folder(out: PathLike | None) -> Iterator[Path]:
    if out is not None:
        yield Path(os.path.abspath(out))
        return
    with tempfile.TemporaryDirectory(prefix="edgevision-score-") as folder:
        yield Path(folder)


def _check_bad(bad: int, max_bad: int) -> None:
    if bad > max_bad:
        raise RunError(refusal(f"{bad} are", max_bad))


def _check_whole(report: ScoreReport, shards: Sequence[Shard]) -> None:
    """Refuse a report in which a frame is missing or counted twice: it would be a bug of ours."""
    counted = [(s.number, s.frames + s.bad) for s in report.shards]
    if counted != [(shard.number, len(shard.places)) for shard in shards]:
        raise RunError("the shards' results are not those of the data: give another --out")


def _report(
    bundle: Bundle, options: ScoreOptions, metric: Metric, tally: Tally, reference: Tally
) -> ScoreReport:
    shards = tuple(
        ShardReport(number, **{key: reported[key] for key in reported if key != "identity"})
        for number, reported in shard_reports(tally)
    )
    if len(targets := sorted({shard.target for shard in shards})) > 1:
        warnings.warn(
            f"workers ran other engines, {', '.join(targets)}, and figures of each are mixed: give "
            "--target",
            stacklevel=3,
        )
    frames = sum(shard.frames for shard in shards)
    names = [bundle.root.name]
    if options.against is not None:
        names.append(Path(os.path.abspath(options.against)).name)
    names = names if len(set(names)) == len(names) else ["candidate", "reference"]
    most = tally.rows("apart", APART)[:SHOWN]
    return ScoreReport(
        scores=tuple(
            metric.score(name, kept) for name, kept in zip(names, (tally, reference), strict=False)
        ),
        frames=frames,
        bad=tuple(text for _, text in tally.texts("bad")),
        shards=shards,
        latencies_ms={share: latency_ms(tally, share) for share in _LATENCIES},
        apart=tally.total("apart") / max(1, frames) if options.against is not None else None,
        frames_apart=tally.number("frames apart"),
        most_apart=tuple((int(row["frame"]), 0.0 - float(row["closeness"])) for row in most),
        against=metric.against(tally),
    )


class _Remaining:
    """Tells a progress callback how far all workers are, and what time remains."""

    def __init__(self, progress: Progress, total: int, done: int, workers: int) -> None:
        self._progress, self._total, self._done = progress, total, done
        self._before, self._start, self._workers = done, time.monotonic(), workers
        progress("scoring", done, total)

    def advance(self, frames: int) -> None:
        """Count what a worker did."""
        self._done += frames
        spent_s = time.monotonic() - self._start
        left_s = spent_s / (self._done - self._before) * (self._total - self._done)
        hours, minutes = divmod(round(left_s / 60), 60)
        phase = f"scoring, {self._workers} workers, {hours}:{minutes:02d} h left"
        self._progress(phase, self._done, self._total)
