"""What a graph loses beside FP32: of the task's figure on labelled frames, else of agreement."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgevision.bundle.forms import INT8
from edgevision.bundle.tensors import Array
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds, Run, from_first_state
from edgevision.metrics.metric import Metric, Predict, Truths, predictor
from edgevision.metrics.tally import Tally
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.proof import Proof
from edgevision.tasks.task import Decoder, Headline
from edgevision.tasks.timings import Timings

_UNTIMED = Timings(0.0, 0.0, 0.0)
_MAX_ANSWERS = 512
"""Answers of the reference that are held in memory."""


def untimed(run: Run) -> Callable[[Mapping[str, Any]], tuple[Mapping[str, Array], Timings]]:
    """Return a run for a predictor that needs no times."""
    return lambda feeds: (run(feeds), _UNTIMED)


class Figure(Protocol):
    """What a graph loses on numbered samples; smaller is better, and 0 is FP32's."""

    @property
    def title(self) -> str:
        """What is lost, e.g. "mIoU"."""

    @property
    def count(self) -> int:
        """How many samples there are."""

    def key(self) -> bytes:
        """Return a hash of the samples, and of all that is true of them."""

    def lost(self, reference: Run, run: Run, samples: Sequence[int]) -> float:
        """Return what `run` loses on these samples beside `reference`."""


class LabelledFigure:
    """The task's headline figure on a folder of labelled frames."""

    def __init__(
        self,
        headline: Headline,
        metric: Metric,
        decoder: Decoder[Any],
        truths: Truths,
        begin: Feeds,
    ) -> None:
        self.title = headline.name
        self._headline, self._metric, self._decoder = headline, metric, decoder
        self._truths, self._begin = truths, begin
        self._names = list(truths.pictures)
        self._answers: dict[int, Any] = {}
        self._known: dict[Sequence[int], float | None] = {}

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._names)

    def key(self) -> bytes:
        """Return a hash of frames and labels."""
        digest = hashlib.sha256(self.title.encode())
        for path in (*self._truths.pictures.values(), *self._truths.sources()):
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        return digest.digest()

    def is_known(self, reference: Run) -> bool:
        """Whether the figure is defined: there are labels."""
        figure = self._exact(reference, range(self.count))
        return figure is not None and figure == figure

    def lost(self, reference: Run, run: Run, samples: Sequence[int]) -> float:
        """Return the loss of the figure on these frames."""
        was, now = self._exact(reference, samples), self._score(reference, run, samples)
        if was is None or now is None or was != was:
            raise ExportError(
                f"{self.title} is undefined on {len(samples)} of the frames: they show nothing of "
                "what the model knows. Give more labelled frames"
            )
        # Of a graph that answers nothing at all a figure may be undefined: it lost everything.
        return self._headline.loss(was, now) if now == now else abs(was)

    def _exact(self, reference: Run, samples: Sequence[int]) -> float | None:
        if samples not in self._known:
            self._known[samples] = self._score(reference, None, samples)
        return self._known[samples]

    def _score(self, reference: Run, run: Run | None, samples: Sequence[int]) -> float | None:
        tally = Tally()
        predict = None if run is None else self._predict(run)
        for number in samples:
            path = self._truths.pictures[self._names[number]]
            picture = read_image(path)
            assert self._decoder.camera is not None
            frame = resize(picture, self._decoder.camera.size)
            first = self._answers.get(number)
            if first is None:
                first = self._predict(reference)(frame)
                if len(self._answers) < _MAX_ANSWERS:
                    self._answers[number] = first
            found = first if predict is None else predict(frame)
            truth = self._truths.of(self._names[number], (picture.shape[0], picture.shape[1]))
            self._metric.add(tally, number, truth, found, first)
        return self._metric.score("int8", tally).figures().get(self._headline.name)

    def _predict(self, run: Run) -> Predict:
        return predictor(self._decoder, untimed(from_first_state(run, self._begin)))


class Agreement:
    """The share of answers that are not FP32's, by the task's own comparison."""

    title = "share of answers that are not FP32's"

    def __init__(self, proof: Proof, feeds: Sequence[Feeds]) -> None:
        self._proof, self._feeds = proof, feeds
        self._answers: dict[int, Mapping[str, Array]] = {}

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._feeds)

    def key(self) -> bytes:
        """Return a hash of the samples."""
        digest = hashlib.sha256(self.title.encode())
        for feed in self._feeds:
            for name in sorted(feed):
                digest.update(np.ascontiguousarray(feed[name]).tobytes())
        return digest.digest()

    def lost(self, reference: Run, run: Run, samples: Sequence[int]) -> float:
        """Return the mean over these samples of the output that differs most."""
        shares = []
        for number in samples:
            feed = self._feeds[number]
            if number not in self._answers:
                self._answers[number] = _batched(reference(feed))
            golden = self._answers[number]
            bars = self._proof.tolerances(INT8, golden)
            try:
                reports = self._proof.compare(golden, _batched(run(feed)), bars, name="")
            except ValueError:  # there is nothing to compare: no object was found in it
                continue
            shares.append(max(report.mismatch_share for report in reports))
        return float(np.mean(shares)) if shares else 0.0


def _batched(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(array)[np.newaxis] for name, array in outputs.items()}
