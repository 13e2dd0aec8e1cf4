"""Whether a second bundle keeps the first one's headline figure on labelled data."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edgevision.bundle.files import PathLike
from edgevision.errors import RunError
from edgevision.metrics.metric import Verdict, judge, predictor, score_task
from edgevision.progress import Progress, silent
from edgevision.runtime.load import load
from edgevision.tasks.task import get_task


def compare_accuracy(
    first: PathLike,
    second: PathLike,
    folder: PathLike,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> Verdict:
    """Score both bundles on `folder`, and hold the second's headline figure against the first's.

    Args:
        first: what is known, a bundle.
        second: what is judged, a bundle of the same task.
        folder: pictures and labels, as `build --evaluate` takes them.
        device: where both run; see `edgevision.load`.
        progress: told of each picture.

    Raises:
        RunError: the bundles are of different tasks.
        ValueError: the task has no metric.
        FileReadError: the folder is not what the task's metric needs.
    """
    with ExitStack() as stack:
        models = [stack.enter_context(load(path, device=device)) for path in (first, second)]
        known, judged = (model.manifest.task for model in models)
        if known != judged:
            raise RunError(
                f"'{first}' is a bundle of the task {known}, '{second}' of {judged}: their figures "
                "cannot be compared. Give two bundles of one task"
            )
        task = get_task(known)
        if task.headline is None:
            raise ValueError(f"task '{task}' has no metric: leave out --evaluate")
        names = [Path(path).name for path in (first, second)]
        if names[0] == names[1]:  # as releases of one model often are
            names = ["A", "B"]
        forms = {
            name: predictor(model.decoder, partial(model.session.run_timed, is_cut=True))
            for name, model in zip(names, models, strict=True)
        }
        before, after = score_task(task, models[0].decoder, forms, folder, progress)
    return judge(task.headline, before, after)
