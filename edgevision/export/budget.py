"""A budget for INT8: what a graph may lose in the task's own figure, and the search that keeps it.

Where labelled frames are given the loss is of the task's headline figure; without labels it is the
share of answers that are not FP32's, by the task's own comparison, on those frames or, without any,
on the calibration's. Every measurement is kept in the user's cache under the hashes of graph and
data, so a search that was killed goes on where it was, and the next one of the same net is short.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevision._optional import installed_version
from edgevision.bundle.files import PathLike
from edgevision.bundle.flavours import ORT
from edgevision.bundle.forms import FP32, INT8, forms_of
from edgevision.bundle.tensors import Array, Profiles
from edgevision.bundle.user_cache import cache_root, read_cache, write_cache
from edgevision.errors import ExportError, ParityError
from edgevision.export.adapters.adapter import Feeds, ModelAdapter, Run, first_state
from edgevision.export.figures import Agreement, Figure, LabelledFigure
from edgevision.export.graph.capture import serialized
from edgevision.export.precision.macs import multiply_accumulates
from edgevision.export.precision.quantizer import Quantizer
from edgevision.export.precision.search import Candidate, Found, Step, search
from edgevision.export.score import decoder_for
from edgevision.metrics.metric import Score, judge, metric_for
from edgevision.progress import Progress, with_time_left
from edgevision.runtime.session import Session
from edgevision.tasks.cameras import cameras_decoder
from edgevision.tasks.decoders import proof_from
from edgevision.tasks.frames import read_image, resize, spread
from edgevision.tasks.task import Decoder, Task, get_task

OF_TASK = "task"
"""The budget that a task's gates allow."""

_FEW = 16
_MAX_UNLABELLED = 128
"""Frames without labels that are held in memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a budget.

    Attributes:
        title: what was lost, e.g. "mIoU".
        budget: what may be lost of it.
        samples: on how many samples.
        layers: all that could be INT8, in the graph's order.
        found: what the search found.
    """

    title: str
    budget: float
    samples: int
    layers: tuple[str, ...]
    found: Found

    def as_json(self) -> dict[str, object]:
        """Return it as `reports/search.json`."""
        steps = [
            {"loss": step.loss, "int8_share": step.share, "wide": self._wide(step)}
            for step in self.found.steps
        ]
        return {
            "figure": self.title,
            "budget": self.budget,
            "samples": self.samples,
            "chosen": self.found.steps.index(self.found.best),
            "is_complete": self.found.is_complete,
            "steps": steps,
            "harm": dict(self.found.harm),
        }

    def _wide(self, step: Step) -> list[str]:
        return [name for name in self.layers if name not in set(step.int8)]


class BudgetSearch:
    """Finds which layers of one graph stay wide; called with its scales, keeps the outcome.

    Attributes:
        outcome: of the last search; None before.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        budget: float | str,
        *,
        minutes: float,
        evaluate: PathLike | None,
        calibration: Sequence[Feeds],
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter, self._budget, self._minutes = adapter, budget, minutes
        self._evaluate, self._calibration = evaluate, calibration
        self._progress, self._clock = progress, clock
        self.outcome: Outcome | None = None

    def __call__(self, quantizer: Quantizer) -> dict[str, str]:
        """Return the layers that stay wide, and why.

        Raises:
            ExportError: no graph was found that stays inside; says by how much and with what.
        """
        ends = self._clock() + 60 * self._minutes
        profiles = dict(self._adapter.profiles)
        macs = multiply_accumulates(quantizer.source, self._calibration[0], profiles)
        layers = {
            name: Candidate(macs.get(name, 0), layer.snr_db)
            for name, layer in quantizer.layers.items()
        }
        reference = serialized(quantizer.source)
        with Session.open(reference, flavour=ORT, profiles=profiles) as session:
            figure = self._figure(quantizer.source, session.run)
            limit = self._limit(figure)
            measure = MeasuredLoss(quantizer, figure, session.run, profiles)
            found = search(
                layers,
                measure,
                limit,
                macs_beside=sum(n for name, n in macs.items() if name not in layers),
                is_over=lambda: self._clock() > ends,
                progress=with_time_left(self._progress, clock=self._clock),
            )
        self.outcome = Outcome(figure.title, limit, figure.count, tuple(layers), found)
        if not found.holds:
            raise ExportError(self._refusal(found, limit, figure))
        kept = set(found.best.int8)
        return {name: _reason(name, found, figure.title) for name in layers if name not in kept}

    def _figure(self, fp32: onnx.ModelProto, reference: Run) -> Figure:
        task: Task[Any] = get_task(self._adapter.task)
        proof = proof_from(task, self._adapter.settings(), 1)
        if self._evaluate is None:
            return Agreement(proof, self._calibration)
        decoder = decoder_for(self._adapter, fp32)
        metric = metric_for(task, decoder)
        truths = metric.truths(self._evaluate)
        truths.check(self._progress)
        assert task.headline is not None  # else there is no metric
        begin = first_state(self._adapter)
        labelled = LabelledFigure(task.headline, metric, decoder, truths, begin)
        if labelled.is_known(reference):
            return labelled
        camera = decoder.camera
        assert camera is not None
        paths = spread(list(truths.pictures.values()), _MAX_UNLABELLED)
        frames = (camera.fit(resize(read_image(path), camera.size)) for path in paths)
        return Agreement(proof, [_fed(decoder, frame, begin) for frame in frames])

    def _limit(self, figure: Figure) -> float:
        headline = get_task(self._adapter.task).headline
        if self._budget != OF_TASK:
            return float(self._budget)
        if headline is None or figure.title != headline.name:
            raise ValueError(
                "budget: 'task' is what the task's figure may lose, and no labelled frames say "
                "what it is. Give --evaluate DIR with labels, or a number: the share of answers "
                "that may differ from FP32's"
            )
        return headline.max_loss

    def _refusal(self, found: Found, limit: float, figure: Figure) -> str:
        best = found.best
        wide = [name for name in found.harm or best.int8 if name not in set(best.int8)]
        with_what = f"{best.share:.0%} of the multiply-accumulates in INT8" + (
            f" and {len(wide)} layers wide" if wide else ""
        )
        over = f"{figure.title}: {best.loss:.4g} is lost with {with_what}, {limit:g} is allowed"
        if not found.is_complete:
            return (
                f"no graph inside the budget was found in {self._minutes:g} minutes. The best so "
                f"far, {over}. Run it again, it goes on where it stopped; or give more time: "
                "--search-minutes N (search_minutes=)"
            )
        return (
            f"no graph with a layer in INT8 stays inside the budget. The nearest, {over}, which is "
            f"{best.loss - limit:.4g} too much. Give --budget {best.loss:.2g} or more, look at the "
            "calibration frames, or build FP16"
        )


def _fed(decoder: Decoder[Any], frame: Any, begin: Feeds) -> dict[str, Array]:
    """Return what a graph is fed of a frame; of several cameras, all show the same one."""
    cameras = cameras_decoder(decoder)
    given = (
        decoder.feeds(frame)
        if cameras is None
        else cameras.feeds(np.stack([frame] * cameras.count[0]))
    )
    return {**{name: np.asarray(value) for name, value in given.items()}, **begin}


def _reason(name: str, found: Found, title: str) -> str:
    """Return why a layer stays wide."""
    return f"for the budget: without it {found.harm[name]:.2g} less is lost of {title}"


class MeasuredLoss:
    """A quantizer's graphs by what they lose; what was measured before comes from the cache."""

    def __init__(
        self, quantizer: Quantizer, figure: Figure, reference: Run, profiles: Profiles
    ) -> None:
        self._quantizer, self._figure, self._reference = quantizer, figure, reference
        self._profiles = profiles
        count = figure.count
        self._all = range(count)
        self._few = self._all[:: -(-count // _FEW)]
        self._kept = _Kept(figure.key() + hashlib.sha256(serialized(quantizer.source)).digest())

    def __call__(self, int8: Collection[str], *, on_all: bool) -> float:
        """See `search.Loss`."""
        samples = self._all if on_all else self._few
        graph = serialized(self._quantizer.graph(int8))
        key = f"{hashlib.sha256(graph).hexdigest()} {len(samples)}"
        if (known := self._kept.get(key)) is not None:
            return known
        with Session.open(graph, flavour=ORT, profiles=self._profiles) as session:
            found = self._figure.lost(self._reference, session.run, samples)
        self._kept.put(key, found)
        return found


class _Kept:
    """Losses by graph, in a file of the user's cache for each data set and net."""

    def __init__(self, key: bytes) -> None:
        versions = f"{installed_version('edgevision')} {installed_version('onnxruntime')}"
        name = hashlib.sha256(key + versions.encode()).hexdigest()
        self._path: Path | None = None
        self._found: dict[str, float] = {}
        with suppress(OSError):  # whoever has no home keeps nothing
            self._path = cache_root() / "search" / name[:32]
            self._found = json.loads(read_cache(self._path) or b"{}")

    def get(self, key: str) -> float | None:
        return self._found.get(key)

    def put(self, key: str, loss: float) -> None:
        self._found[key] = loss
        if self._path is not None:
            with suppress(OSError):
                write_cache(self._path, json.dumps(self._found).encode())


def check_budget(precision: str, budget: float | str | None, minutes: float) -> None:
    """Refuse a budget that makes no sense."""
    if budget is None:
        return
    if precision != INT8.precision:
        raise ValueError(f"budget: what INT8 may lose, and precision is {precision}")
    is_number = type(budget) in (int, float) and 0 <= float(budget) < math.inf
    if budget != OF_TASK and not is_number:
        raise ValueError(
            f"budget: got {budget!r}, expected what may be lost such as 0.005, or '{OF_TASK}'"
        )
    if not 0 <= minutes < math.inf:
        raise ValueError(f"search_minutes: got {minutes!r}, expected a number of minutes")


def search_for(
    adapter: ModelAdapter,
    budget: float | str,
    minutes: float,
    evaluate: PathLike | None,
    fed: Mapping[str, tuple[ModelAdapter, Sequence[Mapping[str, Array]]]],
    progress: Progress,
) -> BudgetSearch:
    """Return the search of a model's layers.

    Raises:
        ValueError: the model has several graphs, or brings its own Q/DQ.
    """
    if len(fed) > 1:
        raise ValueError(
            f"budget: the model has {len(fed)} graphs, {', '.join(fed)}, whose layers lose "
            "something only together; the search is of one graph. Build it in one (form='greedy' "
            "of a captioner), or name what stays wide: keep_fp32=STAGE/NAME"
        )
    ((_, feeds),) = fed.values()
    if not feeds:
        raise ValueError("budget: the graph brings its own Q/DQ, and its layers stay as they are")
    return BudgetSearch(
        adapter, budget, minutes=minutes, evaluate=evaluate, calibration=feeds, progress=progress
    )


def max_loss(searching: BudgetSearch | None, adapter: ModelAdapter) -> float | None:
    """Return the budget where it is of the task's figure; None where the task's own holds."""
    headline = get_task(adapter.task).headline
    outcome = None if searching is None else searching.outcome
    if outcome is None or headline is None or outcome.title != headline.name:
        return None
    return outcome.budget


def hold_budget(searching: BudgetSearch, scores: Sequence[Score], adapter: ModelAdapter) -> None:
    """Refuse forms that lose more than the budget: the search knows the one for CPUs.

    Raises:
        ParityError: one does.
    """
    headline, allowed = get_task(adapter.task).headline, max_loss(searching, adapter)
    if headline is None or allowed is None:
        return
    exact = next(score for score in scores if score.form == FP32.name)
    for score in scores:
        if score.form not in {form.name for form in forms_of("int8") if form.is_quantized}:
            continue
        verdict = judge(headline, exact, score, max_loss=allowed)
        if not verdict.passed:
            raise ParityError(
                f"the search stayed inside the budget with a rest in float32, the {score.form} "
                f"graph does not: {verdict.text}. Give --budget a little less"
            )
