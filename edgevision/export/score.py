"""Every form of a model in its task's own metric, and a picture of where the forms differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgevision.bundle.files import PathLike
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.export.adapters.adapter import (
    ModelAdapter,
    Run,
    StagedAdapter,
    adapter_state,
    first_state,
    from_first_state,
)
from edgevision.export.adapters.tensors import graph_inputs, graph_outputs
from edgevision.export.figures import untimed
from edgevision.export.precision.half_rounding import by_the_standard
from edgevision.export.recipe import ExportedStage
from edgevision.metrics.differences import draw_differences
from edgevision.metrics.metric import Score, predictor, score_task
from edgevision.metrics.own import OwnMetric, score_own
from edgevision.progress import Progress, silent
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import decoder_from
from edgevision.tasks.task import Decoder, get_task
from edgevision.tasks.tensors import TASK as TENSORS


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of every form, PyTorch's own first; `picture`: PNG of differences, if any."""

    scores: Sequence[Score]
    picture: bytes


def score_forms(
    adapter: ModelAdapter,
    stages: Mapping[str, ExportedStage],
    folder: PathLike,
    *,
    metric: OwnMetric | None = None,
    progress: Progress = silent,
) -> Scored:
    """Run every form on the pictures of `folder`, and score it; with `metric` on its .npz files.

    Raises:
        ValueError: the task has no metric and none was given, or has one of its own.
        FileReadError: the folder is not what the task's metric needs.
    """
    task = get_task(adapter.task)
    decoder = _decoder(adapter, _stages(stages))
    camera = decoder.camera
    takes_arrays = camera is None and task.takes_folder
    if metric is None and (task.headline is None or camera is None):
        raise ValueError(
            f"task '{task}' has no metric: leave out --evaluate"
            + (", or give one of yours: --set metric=MODULE:NAME (metric=)" if takes_arrays else "")
        )
    if metric is not None and not takes_arrays:
        raise ValueError(f"task '{task}' has its own way to score, metric= is for tensors")
    with ExitStack() as stack:
        runs: dict[str, Run] = {"torch": adapter.reference}
        for form in next(iter(stages.values())).graphs:
            parts: dict[str, Run] = {}
            for name, stage in stages.items():
                graph = by_the_standard(stage.graphs[form])
                session = Session.open(graph, flavour=ORT, profiles=stage.profiles)
                parts[name] = stack.enter_context(session).run
            if isinstance(adapter, StagedAdapter):
                runs[form] = adapter.join_stages(parts)
            else:
                runs[form] = parts["main"]
        begin = first_state(adapter)
        runs = {form: from_first_state(run, begin) for form, run in runs.items()}
        if metric is not None:
            state = adapter_state(adapter)
            fed = [spec for spec in adapter.inputs if spec.name not in state]
            labelled = TENSORS.labelled(fed, Path(folder))
            return Scored(tuple(score_own(metric, runs, labelled, progress)), b"")
        assert camera is not None
        forms = {form: predictor(decoder, untimed(run)) for form, run in runs.items()}
        scores = score_task(task, decoder, forms, folder, progress)
        picture = draw_differences(task, forms, folder, camera.size, progress)
    return Scored(tuple(scores), picture)


def decoder_for(adapter: ModelAdapter, fp32: onnx.ModelProto) -> Decoder[Any]:
    """Return the decoder that the run side will have of a model of one graph."""
    outputs = graph_outputs(fp32)
    bars = {spec.name: Tolerance() for spec in outputs}
    stage = Stage("main", "model.onnx", graph_inputs(fp32), outputs, bars, dict(adapter.profiles))
    return _decoder(adapter, [stage])


def _decoder(adapter: ModelAdapter, stages: Sequence[Stage]) -> Decoder[Any]:
    read = adapter.files().__getitem__
    return decoder_from(get_task(adapter.task), adapter.settings(), tuple(stages), read)


def _stages(exported: Mapping[str, ExportedStage]) -> list[Stage]:
    """Return the stages as the run side will see them."""
    return [
        Stage(
            name,
            "model.onnx",
            stage.inputs,
            stage.outputs,
            stage.tolerances["fp32"],
            stage.profiles,
        )
        for name, stage in exported.items()
    ]
