"""Every form of a model in its task's own metric, and a picture of where the forms differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Stage
from edgevision.metrics.differences import draw_differences
from edgevision.metrics.evaluate import Score
from edgevision.metrics.score import Predict, Result, Task, score_task
from edgevision.progress import Progress, silent
from edgevision.runtime.session import Session
from edgevision.tasks.caption import CaptionTask
from edgevision.tasks.instance import InstanceTask
from edgevision.tasks.semantic import SemanticTask
from edgevision.tasks.timings import Timings

if TYPE_CHECKING:
    from edgevision.export.adapters.adapter import ModelAdapter, Run
    from edgevision.export.recipe import ExportedStage

Array = npt.NDArray[np.generic]
Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]

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
    from edgevision.export.adapters.adapter import (
        StagedAdapter,  # needs torch, which `adapter` brought
    )

    task = _task(adapter, stages)
    with ExitStack() as stack:
        runs: dict[str, Run] = {"torch": adapter.reference}
        for form in next(iter(stages.values())).graphs:
            parts: dict[str, Run] = {}
            for name, stage in stages.items():
                graph = stage.graphs[form]
                session = Session.open(graph, flavour=ORT, profiles=stage.profiles)
                parts[name] = stack.enter_context(session).run
            if isinstance(adapter, StagedAdapter):
                runs[form] = adapter.joined(parts)
            else:
                runs[form] = parts["main"]
        forms = {form: _predict(adapter, task, run) for form, run in runs.items()}
        scores = score_task(task, forms, folder, progress)
        picture = draw_differences(forms, folder, task.frame_size, progress)
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
