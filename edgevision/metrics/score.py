"""Every form of a model in its task's own metric, over a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.metrics.evaluate import (
    Score,
    evaluate_captions,
    evaluate_instances,
    evaluate_semantic,
)
from edgevision.progress import Progress
from edgevision.tasks.caption import CaptionResult, CaptionTask
from edgevision.tasks.instance import InstanceResult, InstanceTask
from edgevision.tasks.semantic import SemanticResult, SemanticTask

Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]
Result = SemanticResult | InstanceResult | CaptionResult
Task = SemanticTask | InstanceTask | CaptionTask
Predict = Callable[[Image], Result]
_R = TypeVar("_R")


def score_task(
    task: Task, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> Sequence[Score]:
    """Score each form on the pictures of `folder`; the first is what the others agree with.

    Raises:
        FileReadError: the folder is not what the task's metric needs.
    """
    size = task.frame_size
    if isinstance(task, SemanticTask):
        return evaluate_semantic(
            {form: _class_map(predict) for form, predict in forms.items()},
            folder,
            class_count=len(task.classes),
            frame_size=size,
            progress=progress,
        )
    if isinstance(task, InstanceTask):
        return evaluate_instances(
            {form: _as(InstanceResult, predict) for form, predict in forms.items()},
            folder,
            classes=[label.name for label in task.classes],
            frame_size=size,
            progress=progress,
        )
    return evaluate_captions(
        {form: _as(CaptionResult, predict) for form, predict in forms.items()},
        folder,
        frame_size=size,
        progress=progress,
    )


def _class_map(predict: Predict) -> Callable[[Image], Image]:
    def of(pixels: Image) -> Image:
        result = predict(pixels)
        assert isinstance(result, SemanticResult)
        return result.mask

    return of


def _as(kind: type[_R], predict: Predict) -> Callable[[Image], _R]:
    def of(pixels: Image) -> _R:
        result = predict(pixels)
        assert isinstance(result, kind)
        return result

    return of
