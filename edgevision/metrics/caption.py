"""Captions over a folder: BLEU, ROUGE-L and CIDEr, and agreement with the first form."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.metrics.captions import CaptionScores, caption_scores, token_agreement
from edgevision.metrics.coco import read_captions
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.progress import Progress, silent
from edgevision.tasks.caption import CaptionDecoder, CaptionResult
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.labelled import readable_ones

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CaptionScore:
    """How one form of a captioner does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        scores: BLEU, ROUGE-L and CIDEr.
        agreement: share of captions that are those of the first form, token for token.
    """

    form: str
    scores: CaptionScores
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {
            "BLEU-1": self.scores.bleu[0],
            "BLEU-4": self.scores.bleu[3],
            "ROUGE-L": self.scores.rouge_l,
            "CIDEr": self.scores.cider,
            "same as torch": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return nothing: captions have no classes."""
        return ()


def score_folder(
    decoder: CaptionDecoder, forms: Mapping[str, Predict], folder: PathLike, progress: Progress
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_captions`."""
    size = decoder.camera.size
    return list(evaluate_captions(forms, folder, frame_size=size, progress=progress))


def evaluate_captions(
    forms: Mapping[str, Callable[[Image], CaptionResult]],
    folder: str | os.PathLike[str],
    *,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[CaptionScore]:
    """Score each form on every picture of `folder`, see `coco`.

    Raises:
        FileReadError: there is no such folder.
    """
    pictures = readable_ones(read_captions(folder), lambda picture: read_image(picture[0]))
    said: dict[str, list[CaptionResult]] = {form: [] for form in forms}
    for done, (path, _) in enumerate(pictures):
        progress("evaluating", done, len(pictures))
        frame = resize(read_image(path), frame_size)
        for form, describe in forms.items():
            said[form].append(describe(frame))
    progress("evaluating", len(pictures), len(pictures))
    truth = [captions for _, captions in pictures]
    tokens = {form: [r.tokens.tolist() for r in results] for form, results in said.items()}
    first = next(iter(tokens.values()))
    return [
        CaptionScore(
            form,
            caption_scores([result.text for result in results], truth),
            token_agreement(first, tokens[form]).captions,
        )
        for form, results in said.items()
    ]
