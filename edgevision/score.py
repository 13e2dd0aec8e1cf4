"""Every form of a model in its task's own metric, and a picture of where the forms differ."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.manifest import Settings, Stage
from edgevision.progress import Progress, silent
from edgevision.runtime.evaluate import (
    Score,
    evaluate_instances,
    evaluate_semantic,
    pictures_of,
)
from edgevision.runtime.frames import read_image, resize
from edgevision.runtime.session import Session
from edgevision.runtime.tasks.instance import InstanceResult, InstanceTask
from edgevision.runtime.tasks.semantic import SemanticResult, SemanticTask
from edgevision.runtime.timing import Timings
from edgevision.targets import Flavour

if TYPE_CHECKING:
    from edgevision.export.adapter import ModelAdapter
    from edgevision.export.recipe import ExportedStage

Array = npt.NDArray[np.generic]
Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]
Result = SemanticResult | InstanceResult
Predict = Callable[[Image], Result]

_TASKS: Mapping[str, Callable[[Settings, tuple[Stage, ...]], SemanticTask | InstanceTask]] = {
    "semantic": SemanticTask.from_manifest,
    "instance": InstanceTask.from_manifest,
}
_SHOWN = 3
_LOOKED_AT = 24
_UNTIMED = Timings(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of every form, PyTorch's own first, and `picture`: PNG bytes of differences."""

    scores: tuple[Score, ...]
    picture: bytes


def score_forms(
    adapter: ModelAdapter,
    stage: ExportedStage,
    folder: PathLike,
    *,
    progress: Progress = silent,
) -> Scored:
    """Run every form on the pictures of `folder`, and score it.

    Raises:
        ValueError: the task has no metric.
        FileReadError: the folder is not what the task's metric needs.
    """
    if adapter.task not in _TASKS:
        raise ValueError(f"task '{adapter.task}' has no metric: leave out --evaluate")
    described = Stage("main", "model.onnx", stage.inputs, stage.outputs, stage.tolerances["fp32"])
    task = _TASKS[adapter.task](adapter.settings(), (described,))
    with ExitStack() as stack:
        runs: dict[str, Callable[[dict[str, Array]], Mapping[str, Array]]] = {
            "torch": adapter.reference
        }
        for form, graph in stage.graphs.items():
            session = Session.open(graph, flavour=Flavour.ORT, profiles=stage.profiles)
            runs[form] = stack.enter_context(session).run
        forms = {form: _predict(adapter, task, run) for form, run in runs.items()}
        names = [label.name for label in task.classes]
        scores: Sequence[Score]
        if isinstance(task, SemanticTask):
            scores = evaluate_semantic(
                {form: _class_map(predict) for form, predict in forms.items()},
                folder,
                class_count=len(names),
                frame_size=task.frame_size,
                progress=progress,
            )
        else:
            scores = evaluate_instances(
                {form: _objects(predict) for form, predict in forms.items()},
                folder,
                classes=names,
                frame_size=task.frame_size,
                progress=progress,
            )
        picture = _differences(forms, folder, task.frame_size, progress)
    return Scored(tuple(scores), picture)


def _predict(
    adapter: ModelAdapter,
    task: SemanticTask | InstanceTask,
    run: Callable[[dict[str, Array]], Mapping[str, Array]],
) -> Predict:
    from edgevision.export.samples import in_channel_order

    name = adapter.inputs[0].name

    def predict(pixels: Image) -> Result:
        feed = in_channel_order(adapter, pixels)[np.newaxis]
        return task.decode(run({name: feed}), _UNTIMED)

    return predict


def _class_map(predict: Predict) -> Callable[[Image], Image]:
    def of(pixels: Image) -> Image:
        result = predict(pixels)
        assert isinstance(result, SemanticResult)
        return result.mask

    return of


def _objects(predict: Predict) -> Callable[[Image], InstanceResult]:
    def of(pixels: Image) -> InstanceResult:
        result = predict(pixels)
        assert isinstance(result, InstanceResult)
        return result

    return of


def _differences(
    forms: Mapping[str, Predict], folder: PathLike, size: tuple[int, int], progress: Progress
) -> bytes:
    """Draw the pictures where the first and the last form differ most: both, and where, in red."""
    first, *_, last = forms.values()
    paths = pictures_of(folder)
    rows: list[tuple[float, Image]] = []
    for done, path in enumerate(paths[:: -(-len(paths) // _LOOKED_AT)]):
        progress("drawing differences", done, min(len(paths), _LOOKED_AT))
        frame = resize(read_image(path), size)
        before, after = first(frame), last(frame)
        differs = _pixels(before) != _pixels(after)
        marked = np.repeat((frame.mean(2, keepdims=True) * 0.45).astype(np.uint8), 3, 2)
        marked[differs] = (255, 48, 48)
        row = np.concatenate([before.overlay(frame), after.overlay(frame), marked], axis=1)
        rows.append((float(differs.mean()), row))
    rows.sort(key=lambda pair: -pair[0])
    buffer = io.BytesIO()
    sheet = np.concatenate([row for _, row in rows[:_SHOWN]])
    require("PIL.Image", extra="media").fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(result: Result) -> npt.NDArray[np.integer]:
    """Return what each pixel is: its class, and for objects 0 where there is none."""
    if isinstance(result, SemanticResult):
        return result.mask.astype(np.int32)
    sure = result.above(0.5)
    classes = np.zeros(sure.frame_size, np.int32)
    for mask, label in zip(sure.pasted()[::-1], sure.labels[::-1], strict=True):
        classes[mask] = label + 1
    return classes
