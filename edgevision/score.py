"""Every form of a model in its task's own metric, and a picture of where the forms differ."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.manifest import Stage
from edgevision.progress import Progress, silent
from edgevision.runtime.evaluate import (
    Score,
    evaluate_captions,
    evaluate_instances,
    evaluate_semantic,
    pictures_of,
)
from edgevision.runtime.frames import read_image, resize
from edgevision.runtime.session import Session
from edgevision.runtime.tasks.caption import CaptionResult, CaptionTask
from edgevision.runtime.tasks.instance import InstanceResult, InstanceTask
from edgevision.runtime.tasks.semantic import SemanticResult, SemanticTask
from edgevision.runtime.timing import Timings
from edgevision.targets import Flavour

if TYPE_CHECKING:
    from edgevision.export.adapter import ModelAdapter, Run
    from edgevision.export.recipe import ExportedStage

Array = npt.NDArray[np.generic]
Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]
Result = SemanticResult | InstanceResult | CaptionResult
Task = SemanticTask | InstanceTask | CaptionTask
Predict = Callable[[Image], Result]
_R = TypeVar("_R")

_SHOWN = 3
_LOOKED_AT = 24
_CAPTION_WIDTH = 640
_UNTIMED = Timings(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of every form, PyTorch's own first, and `picture`: PNG bytes of differences."""

    scores: tuple[Score, ...]
    picture: bytes


def score_forms(
    adapter: ModelAdapter,
    stages: Mapping[str, ExportedStage],
    folder: PathLike,
    *,
    progress: Progress = silent,
) -> Scored:
    """Run every form on the pictures of `folder`, and score it.

    Raises:
        ValueError: the task has no metric.
        FileReadError: the folder is not what the task's metric needs.
    """
    from edgevision.export.adapter import StagedAdapter  # needs torch, which `adapter` brought

    task = _task(adapter, stages)
    with ExitStack() as stack:
        runs: dict[str, Run] = {"torch": adapter.reference}
        for form in next(iter(stages.values())).graphs:
            parts: dict[str, Run] = {}
            for name, stage in stages.items():
                graph = stage.graphs[form]
                session = Session.open(graph, flavour=Flavour.ORT, profiles=stage.profiles)
                parts[name] = stack.enter_context(session).run
            if isinstance(adapter, StagedAdapter):
                runs[form] = adapter.joined(parts)
            else:
                runs[form] = parts["main"]
        forms = {form: _predict(adapter, task, run) for form, run in runs.items()}
        scores = score_task(task, forms, folder, progress)
        picture = _differences(forms, folder, task.frame_size, progress)
    return Scored(tuple(scores), picture)


def _task(adapter: ModelAdapter, exported: Mapping[str, ExportedStage]) -> Task:
    """Return the decoder of the adapter's task."""
    settings = adapter.settings()
    stages = tuple(
        Stage(name, "model.onnx", stage.inputs, stage.outputs, stage.tolerances["fp32"])
        for name, stage in exported.items()
    )
    if adapter.task == "semantic":
        return SemanticTask.from_manifest(settings, stages)
    if adapter.task == "instance":
        return InstanceTask.from_manifest(settings, stages)
    if adapter.task == "caption" and len(stages) > 1:
        return CaptionTask.by_words(settings, stages[0], adapter.files().__getitem__)[0]
    if adapter.task == "caption":
        return CaptionTask.from_manifest(settings, stages, adapter.files().__getitem__)
    raise ValueError(f"task '{adapter.task}' has no metric: leave out --evaluate")


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


def _predict(
    adapter: ModelAdapter,
    task: Task,
    run: Run,
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


def _as(kind: type[_R], predict: Predict) -> Callable[[Image], _R]:
    def of(pixels: Image) -> _R:
        result = predict(pixels)
        assert isinstance(result, kind)
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
        if isinstance(before, CaptionResult):
            rows.append((float(str(before) != str(after)), _captioned(frame, before, after)))
            continue
        assert not isinstance(after, CaptionResult)
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


def _captioned(frame: Image, before: Result, after: Result) -> Image:
    """Return the frame with both captions beneath, the second in red where it differs."""
    images = require("PIL.Image", extra="media")
    font = require("PIL.ImageFont", extra="media").load_default(15)
    canvas = images.new("RGB", (_CAPTION_WIDTH, 300), "white")
    shown = images.fromarray(frame)
    shown.thumbnail((_CAPTION_WIDTH, 250))
    canvas.paste(shown, (0, 0))
    draw = require("PIL.ImageDraw", extra="media").Draw(canvas)
    draw.text((4, 254), str(before), "black", font)
    draw.text((4, 276), str(after), "black" if str(before) == str(after) else "red", font)
    return np.asarray(canvas)


def _pixels(result: SemanticResult | InstanceResult) -> npt.NDArray[np.integer]:
    """Return what each pixel is: its class, and for objects 0 where there is none."""
    if isinstance(result, SemanticResult):
        return result.mask.astype(np.int32)
    sure = result.above(0.5)
    classes = np.zeros(sure.frame_size, np.int32)
    for mask, label in zip(sure.pasted()[::-1], sure.labels[::-1], strict=True):
        classes[mask] = label + 1
    return classes
