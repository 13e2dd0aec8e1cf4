"""A page of the frames where two bundles differ most, as a release review looks at them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.batch.runner import Runner
from edgevision.batch.score import ScoredRun, ScoreOptions
from edgevision.bundle.files import write_whole
from edgevision.bundle.manifest import Manifest
from edgevision.bundle.printable import printable
from edgevision.errors import FileWriteError
from edgevision.progress import Progress, silent
from edgevision.tasks.frames import resize
from edgevision.tasks.outputs import jpeg_url, page, refuse_foreign
from edgevision.tasks.places import read_frame
from edgevision.tasks.task import get_task

_MAX_WIDTH_PX = 1200
_MAX_CHANGES = 8


def write_review(
    options: ScoreOptions,
    run: ScoredRun,
    out: str | os.PathLike[str],
    *,
    progress: Progress = silent,
) -> Path:
    """Write `review.html`, which needs nothing beside it; returns its path.

    Args:
        options: of the run.
        run: what came out; of two bundles.
        out: the run's folder.
        progress: told of each picture.

    Raises:
        FileWriteError: a file of another maker is there, or it cannot be written.
        FileReadError: a frame is gone.
        MissingDependencyError: jinja2 or Pillow is not installed.
    """
    require("jinja2", extra="report")  # before anything is loaded
    target = Path(out) / "review.html"
    refuse_foreign([target])
    runners = [options.runner(bundle) for bundle in run.bundles]
    report, manifest = run.report, runners[0].model.manifest
    try:
        pictures = []
        most = [(frame, apart) for frame, apart in report.most_apart if apart > 0]
        for done, (frame, apart) in enumerate(most):
            progress("drawing", done, len(most))
            name = printable(run.places[frame].name)
            pictures.append((name, apart, _picture(run, frame, runners)))
    finally:
        for runner in runners:
            runner.close()
    text = page(
        "edgevision.batch",
        "review.html.jinja",
        extra="report",
        name=manifest.name,
        report=report,
        names=list(report.scores[0].figures()),
        changes=_changes(report.against, _class_names(manifest)),
        pictures=pictures,
    )
    try:
        write_whole(target, text.encode())
    except OSError as error:
        raise FileWriteError(f"'{target}' cannot be written: {error.strerror}") from error
    return target


def _picture(run: ScoredRun, frame: int, runners: list[Runner]) -> str:
    """Return both answers to a frame and where they differ, as the URL of a JPEG."""
    candidate, reference = runners
    photo = read_frame(run.places[frame])
    camera = candidate.model.decoder.camera
    assert camera is not None
    pixels = resize(photo, camera.size)
    task = get_task(candidate.model.manifest.task)
    _, drawn = task.difference(pixels, reference.predict(photo), candidate.predict(photo))
    return jpeg_url(drawn, max_side_px=_MAX_WIDTH_PX)


def _class_names(manifest: Manifest) -> list[str]:
    classes = manifest.settings.get("classes")
    found = classes if isinstance(classes, list) else []
    return [str(item["name"]) if isinstance(item, dict) else str(item) for item in found]


def _changes(against: Any, classes: list[str]) -> list[tuple[str, str, float, int]]:
    """Return what became what: from, to, share of what was "from", how often; the most first."""
    if against is None:
        return []
    moved = against.copy()
    np.fill_diagonal(moved, 0)
    totals = np.maximum(against.sum(1), 1)
    order = np.argsort(-moved, axis=None, kind="stable")[:_MAX_CHANGES]
    pairs = [divmod(int(place), moved.shape[1]) for place in order]
    named = classes if len(classes) >= len(moved) else [str(k) for k in range(len(moved))]
    return [
        (named[a], named[b], float(moved[a, b] / totals[a]), int(moved[a, b]))
        for a, b in pairs
        if moved[a, b]
    ]
