"""Captions over a folder: BLEU, ROUGE-L and CIDEr, and agreement with the first form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgevision.bundle.files import PathLike
from edgevision.errors import FileReadError
from edgevision.metrics.captions import CaptionScores, caption_scores
from edgevision.metrics.coco import read_captions
from edgevision.metrics.metric import Metric, Score
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress
from edgevision.tasks.caption import CaptionDecoder, CaptionResult
from edgevision.tasks.labelled import named_pictures, readable_pictures


@dataclass(frozen=True, slots=True)
class CaptionScore(Score):
    """How one form of a captioner does on a folder.

    Attributes:
        scores: BLEU, ROUGE-L and CIDEr; None without captions of people.
        agreement: share of captions that are those of the first form, token for token; None
            without one.
    """

    scores: CaptionScores | None
    agreement: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        scores = self.scores
        return {
            "BLEU-1": None if scores is None else scores.bleu[0],
            "BLEU-4": None if scores is None else scores.bleu[3],
            "ROUGE-L": None if scores is None else scores.rouge_l,
            "CIDEr": None if scores is None else scores.cider,
            "same as reference": self.agreement,
        }


class CaptionTruths:
    """What people say of a folder's pictures, in COCO's `captions.json`."""

    def __init__(self, folder: PathLike) -> None:
        said, self._file = read_captions(folder), Path(folder) / "captions.json"
        self.pictures = named_pictures(folder, [path for path, _ in said])
        self._captions = dict(zip(self.pictures, (texts for _, texts in said), strict=True))

    def sources(self) -> list[Path]:
        """Return the file of all captions; see `Truths`."""
        return [self._file]

    def check(self, progress: Progress) -> None:
        """Leave out pictures that cannot be read; see `Truths`."""
        self.pictures = readable_pictures(self.pictures, progress)

    def of(self, name: str, size: tuple[int, int]) -> list[str]:
        """Return a picture's captions; see `Truths`."""
        if name not in self._captions:
            raise FileReadError(f"'{name}': captions.json does not list it")
        return self._captions[name]


class CaptionMetric(Metric):
    """Captions beside what people say, kept as texts: CIDEr weighs words by all of them."""

    def truths(self, folder: PathLike) -> CaptionTruths:
        """Return the captions of `folder`; see `Metric`."""
        return CaptionTruths(folder)

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: list[str] | None,
        found: CaptionResult,
        first: CaptionResult | None,
    ) -> None:
        """Keep one frame's texts; see `Metric`."""
        if first is not None:
            tally.count("compared", 1)
            tally.count("same", int(found.tokens.tolist() == first.tokens.tolist()))
        if truth is not None:
            tally.write("said", frame, json.dumps([found.text, *truth]))

    def score(self, form: str, tally: Tally) -> CaptionScore:
        """Return BLEU, ROUGE-L and CIDEr; see `Metric`."""
        said = [json.loads(text) for _, text in tally.texts("said")]
        compared = tally.number("compared")
        return CaptionScore(
            form,
            caption_scores([s[0] for s in said], [s[1:] for s in said]) if said else None,
            tally.number("same") / compared if compared else None,
        )


def metric(decoder: CaptionDecoder) -> CaptionMetric:
    """Return the metric of a captioner; see `Metric`."""
    return CaptionMetric()
