"""What a metric is: a task's own score over a folder, found by the task's name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgevision.progress import Progress
from edgevision.tasks.cameras import cameras_of
from edgevision.tasks.task import Decoder, Headline, Task, get_task
from edgevision.tasks.timings import Timings

Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]
Predict = Callable[[Image], Any]
"""From a frame, uint8[H, W, 3] RGB of the model's size, to the task's result."""


Run = Callable[[Mapping[str, object]], tuple[Mapping[str, npt.NDArray[np.generic]], Timings]]
"""From feeds to outputs, and how long it took; a state is that of a first frame."""


def predictor(decoder: Decoder[Any], run: Run) -> Predict:
    """Return what answers photos one by one; of several cameras, all show the same one."""
    camera, cameras = decoder.camera, cameras_of(decoder)
    assert camera is not None  # a task with a metric looks at frames

    def predict(pixels: Image) -> Any:
        frame = camera.fit(pixels)
        if cameras is not None:
            return cameras.decode(*run(cameras.feeds(np.stack([frame] * cameras.count[0]))))[0]
        return decoder.decode(*run(decoder.feeds(frame)))

    return predict


class Score(Protocol):
    """How one form of a model does on a folder; a dataclass."""

    @property
    def form(self) -> str:
        """Which form, e.g. "int8"."""

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns; None for what the folder cannot tell."""

    def per_class(self) -> tuple[float, ...]:
        """Return the main figure of each class, NaN where it does not occur; empty without."""


class ScoreFolder(Protocol):
    """What `metrics/NAME.py` has under the name `score_folder`."""

    def __call__(
        self,
        decoder: Decoder[Any],
        forms: Mapping[str, Predict],
        folder: PathLike,
        progress: Progress,
    ) -> list[Score]:
        """Score each form on the pictures of `folder`; the first is what others agree with.

        Raises:
            FileReadError: the folder is not what the metric needs.
        """


def score_task(
    task: Task[Any],
    decoder: Decoder[Any],
    forms: Mapping[str, Predict],
    folder: PathLike,
    progress: Progress,
) -> list[Score]:
    """Score each form of a model of `task` on the pictures of `folder`.

    Raises:
        ValueError: the task has no metric.
        FileReadError: the folder is not what the task's metric needs.
    """
    if task.headline is None:
        raise ValueError(f"task '{task}' has no metric: leave out --evaluate")
    home = importlib.import_module(f"edgevision.metrics.{task.name}")
    score_folder: ScoreFolder = home.score_folder
    cameras = cameras_of(decoder)
    one = decoder if cameras is None else cameras.one
    return score_folder(one, forms, folder, progress)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a form keeps its reference's headline figure.

    Attributes:
        passed: whether it does.
        text: both figures and the allowed loss, or why there is nothing to compare.
    """

    passed: bool
    text: str


def judge(
    headline: Headline, before: Score, after: Score, *, max_loss: float | None = None
) -> Verdict:
    """Hold the headline figure of `after` against that of `before`.

    A figure that is undefined proves nothing, and does not pass.

    Args:
        headline: the task's.
        before: the reference's score.
        after: the score in question.
        max_loss: allowed in place of the headline's own.
    """
    allowed = headline.max_loss if max_loss is None else max_loss
    was, now = (score.figures().get(headline.name) for score in (before, after))
    if was is None or now is None or was != was or now != now:
        return Verdict(
            False,
            f"{headline.name} is undefined there: the folder has no labels, or none of what the "
            "model knows. Give a labelled folder",
        )
    lost = headline.loss(was, now)
    said = f"{headline.name} is {now:.4f}, {before.form}'s {was:.4f}"
    return Verdict(lost <= allowed, f"{said}; a loss of {allowed:g} is allowed")


def score_fields(score: Score) -> dict[str, object]:
    """Return a score as JSON fields: its own, and its figures by name."""
    fields: dict[str, object] = asdict(score)  # type: ignore[call-overload]
    return {**fields, "figures": score.figures()}


def headline_fields(task: str) -> dict[str, object] | None:
    """Return the figure that gates a task by its name as JSON fields; None without a metric."""
    headline = get_task(task).headline
    return None if headline is None else asdict(headline)
