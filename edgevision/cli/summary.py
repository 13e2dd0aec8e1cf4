"""What `build` and `finish` made, as text and as JSON."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edgevision.bundle.record import finish_command
from edgevision.cli.exits import OK, PENDING
from edgevision.cli.inspect import artifacts_json
from edgevision.cli.terminal import put_json

if TYPE_CHECKING:
    from edgevision.engines.finish import Finish
    from edgevision.engines.summary import BuildSummary


def report(options: argparse.Namespace, summary: BuildSummary, *, on_device: bool) -> int:
    """Say what was made; return the exit code.

    Args:
        options: of the command.
        summary: what was made.
        on_device: what is pending for other machines is not this command's business.
    """
    artifacts = [a for stage in summary.bundle.manifest.stages for a in stage.artifacts]
    pending = [
        a for a in artifacts if a.is_pending and a.target not in summary.finished and not on_device
    ]
    code = PENDING if pending else OK
    if put_json(options, _as_json(summary)):
        return code
    print_scores(summary)
    print(f"{summary.bundle.root}:")
    for artifact in artifacts:
        took = summary.seconds.get(artifact.target)
        state = f"pending: {artifact.reason}" if artifact.is_pending else "built"
        if artifact.target in summary.cached:
            state = "from the cache"
        if artifact.target in summary.finished:
            continue
        print(f"  {artifact.target:21} {state}" + (f" in {took:.1f} s" if took else ""))
    for name, done in summary.finished.items():
        print("\n".join(_finished(name, done)))
    for artifact in pending:
        command = finish_command(summary.bundle.root.name, artifact.target)
        print(f"Finish '{artifact.target}' on the target: {command}")
    return code


def _as_json(summary: BuildSummary) -> dict[str, object]:
    from edgevision.metrics.metric import headline_fields, score_fields

    manifest = summary.bundle.manifest
    return {
        "bundle": str(summary.bundle.root),
        "precision": manifest.precision,
        "accuracy": [
            {k: v for k, v in score_fields(score).items() if not isinstance(v, tuple)}
            for score in summary.scores
        ],
        "headline": headline_fields(manifest.task),
        "parity": [
            {"name": r.name, "mismatch_share": r.mismatch_share, "passed": r.passed}
            for r in summary.parity
        ],
        "artifacts": [
            {**artifact, "cached": artifact["target"] in summary.cached}
            for artifact in artifacts_json(summary.bundle, summary.seconds)
        ],
        "finished": {
            name: {
                "folder": str(done.folder),
                "record": json.loads(done.record.to_json()),
                "seconds": dict(done.seconds),
                "cached": list(done.cached),
            }
            for name, done in summary.finished.items()
        },
        "provenance": dict(manifest.provenance),
    }


def _finished(name: str, done: Finish) -> list[str]:
    record = done.record
    took = sum(done.seconds.values())
    how = f"finished in {took:.1f} s" if done.seconds else "was finished before, and is valid"
    lines = [f"  {name:21} {how}, proven on {record.machine}", f"{'':23} {done.folder}"]
    for stage in record.stages:
        layers = ", ".join(f"{n} in {kind}" for kind, n in sorted((stage.layers or {}).items()))
        lines.append(
            f"{'':23} {stage.file}: {stage.size_bytes / 1e6:.1f} MB; "
            f"layers: {layers or 'not told by this builder'}"
        )
    lines += [f"{'':23} {figure} {value:.4f}" for figure, value in record.score.items()]
    if record.choice is not None:
        lines.append(f"{'':23} kept {record.choice.precision}: {record.choice.reason}")
        lines += [f"{'':23} {k} {value:.4f}" for k, value in record.choice.figures.items()]
    return lines


def print_scores(summary: BuildSummary) -> None:
    """Print the task's figures of each form, and of each class where there are some."""
    if not summary.scores:
        return
    names = list(summary.scores[0].figures())
    print("  ".join([f"{'form':16}", *names]))
    for score in summary.scores:
        values = ("-" if v is None else f"{v:.4f}" for v in score.figures().values())
        cells = (f"{value:>{len(name)}}" for name, value in zip(names, values, strict=True))
        print("  ".join([f"{score.form:16}", *cells]))
    _print_verdicts(summary)
    classes = summary.bundle.manifest.settings.get("classes")
    if not summary.scores[0].per_class() or not isinstance(classes, list):
        return
    print("  ".join([f"{'class':16}", *(f"{score.form:>9}" for score in summary.scores)]))
    for label, *row in zip(classes, *(s.per_class() for s in summary.scores), strict=True):
        name = label["name"] if isinstance(label, dict) else "?"
        print("  ".join([f"{name:16}", *(f"{value:9.4f}" for value in row)]))


def _print_verdicts(summary: BuildSummary) -> None:
    """Say of each form whether it keeps the figure that gates judge by."""
    from edgevision.metrics.metric import judge
    from edgevision.tasks.task import get_task

    headline = get_task(summary.bundle.manifest.task).headline
    before, *forms = summary.scores
    if headline is None or before.figures().get(headline.name) is None:
        return
    for score in forms:
        verdict = judge(headline, before, score, max_loss=summary.max_loss)
        print(f"{score.form:16}  {'kept' if verdict.passed else 'LOST'}: {verdict.text}")
