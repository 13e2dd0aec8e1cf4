"""The verb `score`: a bundle in its task's metric over very many frames, on many workers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgevision.cli.exits import OK
from edgevision.cli.terminal import progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_engines, add_trust, trust_of, verb

if TYPE_CHECKING:
    from edgevision.batch.score import ScoreReport


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    score = verb(
        verbs, "score", _score, example="score road.ev drives/ --workers 8 --out run --resume"
    )
    score.add_argument("bundle", type=Path, metavar="BUNDLE")
    score.add_argument(
        "data", type=Path, metavar="DATA", help="folder; list.txt; .tar or .parquet, or a folder of"
    )
    score.add_argument("--out", type=Path, metavar="DIR", help="keeps the run, which may go on")
    score.add_argument("--labels", type=Path, metavar="DIR", help="default: DATA, if a folder")
    score.add_argument("--no-labels", action="store_true", help="only hold it --against another")
    score.add_argument(
        "--against", type=Path, metavar="BUNDLE", help="score this, too; write review.html"
    )
    score.add_argument(
        "--ray", metavar="ADDRESS", help="workers on this Ray cluster; 'local' starts one here"
    )
    score.add_argument("--workers", type=int, default=1, metavar="N")
    score.add_argument("--resume", action="store_true", help="go on with the run in --out")
    score.add_argument(
        "--max-bad", type=int, default=0, metavar="N", help="frames that may be passed over"
    )
    score.add_argument("--shard", type=int, default=250, metavar="N", help="frames at once")
    score.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    score.add_argument("--target", metavar="NAME", help="default: what fits each worker best")
    add_engines(score)
    add_trust(score)


def _score(options: argparse.Namespace) -> int:
    """Score a bundle over very many frames, in processes or on Ray; a killed run goes on."""
    from edgevision.batch.review import write_review
    from edgevision.batch.score import ScoreOptions, report_fields, score_data

    if options.resume and options.out is None:
        raise ValueError("--resume goes on with the run in --out DIR: give it")
    if options.ray not in (None, "local") and options.out is None:
        raise ValueError("--ray: workers of a cluster write to --out DIR, which all see: give it")
    chosen = ScoreOptions(
        against=options.against,
        labels=options.labels,
        use_labels=not options.no_labels,
        workers=options.workers,
        ray=options.ray,
        frames_a_shard=options.shard,
        resume=options.resume,
        max_bad=options.max_bad,
        device=options.device,
        target=options.target,
        engines=options.engines,
        trust=trust_of(options),
    )
    page = None
    with progress_bar() as progress:
        run = score_data(options.bundle, options.data, options.out, chosen, progress=progress)
        if options.out is not None and options.against is not None:
            page = write_review(options.bundle, chosen, run, options.out, progress=progress)
    document = {**report_fields(run.report), "review": page and str(page)}
    if put_json(options, document):
        return OK
    _print(run.report)
    if page is not None:
        print(f"review: {page}")
    return OK


def _print(report: ScoreReport) -> None:
    for score in report.scores:
        shown = (
            f"{name} {'-' if value is None else f'{value:.4f}'}"
            for name, value in score.figures().items()
        )
        print(f"{score.form:16}  {', '.join(shown)}")
    print(f"{report.frames} frames in {len(report.shards)} shards")
    times = ", ".join(f"p{s * 100:g} {ms:.1f} ms" for s, ms in report.latencies_ms.items())
    seconds = sum(shard.seconds for shard in report.shards)
    print(
        f"one inference: {times}; a worker does {report.frames / max(seconds, 1e-9):.1f} a second"
    )
    if report.apart is not None:
        print(f"apart in {report.frames_apart} frames, by {report.apart:.4%} in the mean")
    for reason in report.bad[:20]:
        print(f"passed over: {reason}")
    if len(report.bad) > 20:
        print(f"passed over: {len(report.bad) - 20} more")
