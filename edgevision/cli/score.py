"""The verb `score`: a bundle in its task's metric over very many frames, on many workers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgevision.cli.exits import OK
from edgevision.cli.terminal import print_bad, progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_engines, add_fleet, add_trust, fleet_fields, verb

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
    add_fleet(score)
    score.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_engines(score)
    add_trust(score)


def _score(options: argparse.Namespace) -> int:
    """Score a bundle over very many frames, in processes or on Ray; a killed run goes on."""
    from edgevision.batch.review import write_review
    from edgevision.batch.score import ScoreOptions, report_fields, score_data

    chosen = ScoreOptions(
        against=options.against,
        labels=options.labels,
        use_labels=not options.no_labels,
        **fleet_fields(options),
    )
    page = None
    with progress_bar() as progress:
        run = score_data(options.bundle, options.data, options.out, chosen, progress=progress)
        if options.out is not None and options.against is not None:
            page = write_review(chosen, run, options.out, progress=progress)
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
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in report.named_latencies_ms.items())
    seconds = sum(shard.seconds for shard in report.shards)
    print(
        f"one inference: {times}; a worker does {report.frames / max(seconds, 1e-9):.1f} a second"
    )
    if report.apart is not None:
        print(f"apart in {report.frames_apart} frames, by {report.apart:.4%} in the mean")
    print_bad(report.bad)
