"""What a metric is: a task's own score over a folder, found by the task's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import PathLike
from edgevision.bundle.tensors import Image
from edgevision.errors import FileReadError
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress, silent
from edgevision.tasks.cameras import cameras_decoder
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.labelled import labelled_images, named_pictures
from edgevision.tasks.task import Decoder, Headline, Task, get_task
from edgevision.tasks.timings import Timings

Predict = Callable[[Image], Any]
"""From a frame, uint8[H, W, 3] RGB of the model's size, to the task's result."""


Run = Callable[[Mapping[str, object]], tuple[Mapping[str, npt.NDArray[np.generic]], Timings]]
"""From feeds to outputs, and how long it took; a state is that of a first frame."""


def predictor(decoder: Decoder[Any], run: Run) -> Predict:
    """Return what answers photos one by one; of several cameras, all show the same one."""
    camera, cameras = decoder.camera, cameras_decoder(decoder)
    assert camera is not None  # a task with a metric looks at frames

    def predict(pixels: Image) -> Any:
        frame = camera.fit(pixels)
        if cameras is not None:
            return cameras.decode(*run(cameras.feeds(np.stack([frame] * cameras.count[0]))))[0]
        return decoder.decode(*run(decoder.feeds(frame)))

    return predict


@dataclass(frozen=True, slots=True)
class Score:
    """How one form of a model does on a folder; a task's own has the figures as fields.

    Attributes:
        form: which form, e.g. "int8".
    """

    form: str

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns; None for what the folder cannot tell."""
        raise NotImplementedError

    def per_class(self) -> tuple[float, ...]:
        """Return the main figure of each class, NaN where it does not occur; empty without."""
        return ()


class Truths(Protocol):
    """What a folder says is true of its pictures."""

    @property
    def pictures(self) -> Mapping[str, Path]:
        """The pictures to score by their names below `images/`, in order."""

    def sources(self) -> Iterable[Path]:
        """Return the files that say so, in a fixed order."""

    def check(self, progress: Progress) -> None:
        """Read all before any form runs: leave out what cannot be read, and warn of it.

        Who scores shares of a folder does not, and names what cannot be read as it comes to it.

        Raises:
            FileReadError: nothing can be read, or no score of these labels would say anything.
        """

    def of(self, name: str, size: tuple[int, int]) -> Any:
        """Return what is true of a picture of `size` (H, W); None where nothing is known.

        Raises:
            FileReadError: its label is missing or cannot be read.
        """


class Metric:
    """How the answers of one task are scored; `metrics/NAME.py` makes it under the name `metric`.

    It keeps nothing: what frames add up to is in a `Tally`, so that shares of a folder can be
    scored anywhere, and merge.
    """

    def truths(self, folder: PathLike) -> Truths:
        """Return what `folder` says is true.

        Raises:
            FileReadError: the folder is not what the metric needs.
        """
        raise NotImplementedError

    def add(self, tally: Tally, frame: int, truth: Any, found: Any, first: Any) -> None:
        """Take in one frame.

        Args:
            tally: of the form.
            frame: the frame's number in the whole folder.
            truth: of `Truths.of`; None where nothing is known.
            found: the form's result.
            first: the first form's result, which others agree with; None without one.
        """
        raise NotImplementedError

    def score(self, form: str, tally: Tally) -> Score:
        """Return the score of all frames that were taken in.

        Raises:
            FileReadError: no score of these labels would say anything.
        """
        raise NotImplementedError

    def against(self, tally: Tally) -> npt.NDArray[np.int64] | None:
        """Return how often the first form said a class (row) where this one said another."""
        return None


class FolderTruths:
    """What a label file beside each picture says, or none; see `Truths`.

    Args:
        folder: see `labelled_images`.
        suffixes: what the label files end in.
    """

    def __init__(self, folder: PathLike, *suffixes: str) -> None:
        pairs = labelled_images(folder, suffixes=suffixes)
        self.pictures = named_pictures(folder, [image for image, _ in pairs])
        self.files = dict(zip(self.pictures, (label for _, label in pairs), strict=True))

    def sources(self) -> list[Path]:
        """Return the label files; see `Truths`."""
        return [label for label in self.files.values() if label is not None]

    def file(self, name: str) -> Path | None:
        """Return a picture's label file; None in a folder without labels.

        Raises:
            FileReadError: it has none, and others do.
        """
        if name not in self.files:
            raise FileReadError(f"'{name}' has no label")
        return self.files[name]


def metric_for(task: Task[Any], decoder: Decoder[Any]) -> Metric:
    """Return the metric of a model of `task`.

    Raises:
        ValueError: the task has no metric.
    """
    if task.headline is None:
        raise ValueError(f"task '{task}' has no metric: leave out --evaluate")
    home = importlib.import_module(f"edgevision.metrics.{task.name}")
    cameras = cameras_decoder(decoder)
    found: Metric = home.metric(decoder if cameras is None else cameras.one)
    return found


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
    metric = metric_for(task, decoder)
    assert decoder.camera is not None  # a task with a metric looks at frames
    return score_folder(metric, forms, folder, decoder.camera.size, progress)


def score_folder(
    metric: Metric,
    forms: Mapping[str, Predict],
    folder: PathLike,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[Score]:
    """Score each form on the pictures of `folder`, resized to `frame_size`; see `Metric`.

    Raises:
        FileReadError: the folder is not what the metric needs.
    """
    truths = metric.truths(folder)
    truths.check(progress)
    tallies = {form: Tally() for form in forms}
    count = len(truths.pictures)
    for number, (name, path) in enumerate(truths.pictures.items()):
        progress("evaluating", number, count)
        picture = read_image(path)
        frame = resize(picture, frame_size)
        truth = truths.of(name, (picture.shape[0], picture.shape[1]))
        first: Any = None
        for form, predict in forms.items():
            found = predict(frame)
            first = found if first is None else first
            metric.add(tallies[form], number, truth, found, first)
    progress("evaluating", count, count)
    return [metric.score(form, tally) for form, tally in tallies.items()]


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
    return {**asdict(score), "figures": score.figures()}


def headline_fields(task: str) -> dict[str, object] | None:
    """Return the figure that gates a task by its name as JSON fields; None without a metric."""
    headline = get_task(task).headline
    return None if headline is None else asdict(headline)
