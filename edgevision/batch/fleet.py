"""Frames shared out to workers: begun or taken up, waited for, and every one counted once."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevision.batch.backends.backend import Backend, open_backend
from edgevision.batch.runner import Runner
from edgevision.batch.shards import RunFolder, Shard, divide, identify, shard_reports
from edgevision.batch.worker import ShardWorker, refusal
from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import PathLike
from edgevision.bundle.trust import Trust
from edgevision.errors import RunError
from edgevision.metrics.latency import latency_ms
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress, with_time_left
from edgevision.tasks.places import Place

_LATENCIES = (0.5, 0.99)
_ANYBODY = Trust()


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How frames are shared out.

    Attributes:
        workers: how many, each with a bundle of its own.
        ray: address of a Ray cluster, "local" for one that is started here; None for processes of
            this machine, or for this very process if there is one worker.
        frames_a_shard: frames that are done, written and lost at once.
        resume: go on with the run in the folder.
        max_bad: frames that may be passed over.
        device: see `edgevision.load`.
        target: see `edgevision.load`.
        engines: see `edgevision.load`.
        cpu_threads: of each worker's engine on a CPU.
        trust: what is asked of every bundle, here and by every worker.
    """

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
            ValueError: one is out of its range.
        """
        for name, least in (("workers", 1), ("frames_a_shard", 1), ("max_bad", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: got {value}, expected {least} or more")

    def backend(self) -> Backend:
        """Return what runs shards.

        Raises:
            MissingDependencyError: Ray is not installed.
        """
        one = "here" if self.workers == 1 else "processes"
        return open_backend("ray" if self.ray else one, self.workers, self.ray)

    def runner(self, bundle: Bundle) -> Runner:
        """Return what runs this very bundle, in whichever folder a worker is."""
        return Runner(
            os.path.abspath(bundle.root),
            device=self.device,
            target=self.target,
            engines=None if self.engines is None else os.path.abspath(self.engines),
            cpu_threads=self.cpu_threads,
            trust=replace(self.trust, keys=tuple(map(os.path.abspath, self.trust.keys))),
            manifest_sha256=bundle.manifest_sha256,
        )


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a worker reported of a shard.

    Attributes:
        number: of the shard.
        frames: that were done.
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
class Totals:
    """What all shards of a run add up to.

    Attributes:
        frames: that were done.
        bad: why frames were passed over, in order.
        shards: in order, what was reported of each.
        latencies_ms: of one inference, by share of the frames, e.g. 0.99.
    """

    frames: int
    bad: tuple[str, ...]
    shards: tuple[ShardReport, ...]
    latencies_ms: Mapping[float, float]

    @property
    def named_latencies_ms(self) -> dict[str, float]:
        """The latencies by their percentile's name, e.g. "p99"."""
        return {f"p{share * 100:g}": ms for share, ms in self.latencies_ms.items()}


@dataclass(frozen=True, slots=True)
class Done:
    """A run whose shards are all done.

    Attributes:
        folder: where it lies, until the context ends.
        shared: in order, what was shared out.
        tally: what the shards add up to.
        totals: the same in figures.
    """

    folder: RunFolder
    shared: Sequence[Shard]
    tally: Tally
    totals: Totals


@contextlib.contextmanager
def done_run(
    options: FleetOptions,
    backend: Backend,
    out: PathLike | None,
    described: dict[str, Any],
    places: Sequence[Place],
    worker: Callable[[RunFolder, str], ShardWorker],
    *,
    phase: str,
    progress: Progress,
    sources: Sequence[Path] = (),
) -> Iterator[Done]:
    """Share frames out, and give what came of them once all are done.

    Args:
        options: how.
        backend: of these options.
        out: folder of the run, seen by every worker; without one nothing is kept.
        described: what the run depends on beside its frames; goes into `run.json`.
        places: of the frames.
        worker: makes the worker for a folder and this command's token.
        phase: what the progress calls it.
        progress: told of each shard, with the time that remains.
        sources: files of the labels, in order.

    Raises:
        FileReadError: a label's file is missing.
        FileWriteError: the folder holds something else, or is full.
        RunError: too many frames are bad, a shard ends its workers, another command is at work
            there, or the folder's run is of another bundle or other data.
    """
    shards = divide(places, options.frames_a_shard)
    with _folder(out) as path:
        folder = RunFolder(path, identify([*described.items()], places, sources))
        with folder.begun(described, resume=options.resume):
            _run(worker(folder, secrets.token_hex(4)), backend, shards, options, phase, progress)
            tally = folder.merged(shards)
            reports = tuple(
                ShardReport(number, **{key: fields[key] for key in fields if key != "identity"})
                for number, fields in shard_reports(tally)
            )
            _check_whole(reports, shards)
            if len(targets := sorted({report.target for report in reports})) > 1:
                warnings.warn(
                    f"workers ran other engines, {', '.join(targets)}, and answers of each are "
                    "mixed: give --target",
                    stacklevel=4,
                )
            totals = Totals(
                sum(report.frames for report in reports),
                tuple(text for _, text in tally.texts("bad")),
                reports,
                {share: latency_ms(tally, share) for share in _LATENCIES},
            )
            yield Done(folder, shards, tally, totals)


def _run(
    worker: ShardWorker,
    backend: Backend,
    shards: Sequence[Shard],
    options: FleetOptions,
    phase: str,
    progress: Progress,
) -> None:
    done = {s.number: fields for s in shards if (fields := worker.folder.reported(s))}
    bad = sum(fields["bad"] for fields in done.values())
    _check_bad(bad, options.max_bad)
    todo = [shard for shard in shards if shard.number not in done]
    left, total = (sum(len(shard.places) for shard in some) for some in (todo, shards))
    over = total - left
    progress(phase, over, total)
    report = with_time_left(progress, begin=over)
    if not todo:
        return
    with contextlib.closing(backend.run(worker, todo)) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            bad += outcome.bad
            _check_bad(bad, options.max_bad)
            over += outcome.frames
            report(f"{phase}, {options.workers} workers", over, total)


@contextlib.contextmanager
def _folder(out: PathLike | None) -> Iterator[Path]:
    if out is not None:
        yield Path(os.path.abspath(out))
        return
    with tempfile.TemporaryDirectory(prefix="edgevision-run-") as folder:
        yield Path(folder)


def _check_bad(bad: int, max_bad: int) -> None:
    if bad > max_bad:
        raise RunError(refusal(f"{bad} are", max_bad))


def _check_whole(reports: Sequence[ShardReport], shards: Sequence[Shard]) -> None:
    """Refuse a run in which a frame is missing or counted twice: it would be a bug of ours."""
    counted = [(report.number, report.frames + report.bad) for report in reports]
    if counted != [(shard.number, len(shard.places)) for shard in shards]:
        raise RunError("the shards' results are not those of the data: give another --out")
