"""Scores of captions: BLEU, ROUGE-L and CIDEr-D as in the COCO evaluation, and token agreement.

Source: Chen et al. 2015, "Microsoft COCO Captions: Data Collection and Evaluation Server", and the
evaluation published with it. Words are runs of letters, digits, apostrophes and hyphens in lower
case; that evaluation's own tokenizer differs in contractions ("don't" is two of its words).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[\w'-]+")
_LONGEST = 4
# Weighs recall above precision in ROUGE-L.
_BETA = 1.2
# How fast CIDEr-D falls with the difference in length, in words.
_SIGMA_WORDS = 6.0

Words = list[str]
NGram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Scores of a set of captions, 0 to 1 but for `cider`, which is 0 to 10.

    Attributes:
        bleu: BLEU-1, BLEU-2, BLEU-3 and BLEU-4 over the whole set.
        rouge_l: mean over the captions.
        cider: mean over the captions; it weighs words by how few frames' references hold them, and
            so is 0 over a single frame and comparable only over the same references.
    """

    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider: float


@dataclass(frozen=True, slots=True)
class TokenAgreement:
    """Shares of what is equal between two runs, 0 to 1.

    Attributes:
        captions: of whole captions, token for token.
        tokens: of positions; one that only the longer caption has counts as unequal.
    """

    captions: float
    tokens: float


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score one caption a frame against the references of that frame.

    Args:
        captions: one for each frame; an empty one scores 0.
        references: one or more for each frame, with at least one word each.

    Raises:
        ValueError: there are no frames, unequally many, or references are missing or empty.
    """
    if len(captions) != len(references) or not captions:
        raise ValueError(
            f"got {len(captions)} captions and references for {len(references)} frames, "
            "expected as many of both, and at least one"
        )
    guesses = [_words(caption) for caption in captions]
    truths = [[_words(reference) for reference in one] for one in references]
    for frame, one in enumerate(truths):
        if not one or not all(one):
            raise ValueError(
                f"frame {frame}: got references {list(references[frame])}, "
                "expected at least one, and words in each"
            )
    return CaptionScores(
        bleu=_bleu(guesses, truths),
        rouge_l=float(np.mean([_rouge_l(g, t) for g, t in zip(guesses, truths, strict=True)])),
        cider=_cider(guesses, truths),
    )


def token_agreement(
    reference: Sequence[Sequence[int]], candidate: Sequence[Sequence[int]]
) -> TokenAgreement:
    """Return how far the token ids of two runs over the same frames are equal.

    Raises:
        ValueError: the runs are empty or unequally long.
    """
    if len(reference) != len(candidate) or not reference:
        raise ValueError(
            f"got {len(reference)} and {len(candidate)} captions, "
            "expected as many of both, and at least one"
        )
    pairs = [(list(one), list(other)) for one, other in zip(reference, candidate, strict=True)]
    equal = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    total = sum(max(len(one), len(other)) for one, other in pairs)
    return TokenAgreement(
        captions=sum(one == other for one, other in pairs) / len(pairs),
        tokens=equal / total if total else 1.0,
    )


def _words(caption: str) -> Words:
    return _WORD.findall(caption.lower())


def _ngrams(words: Words, length: int) -> Counter[NGram]:
    return Counter(zip(*(words[start:] for start in range(length)), strict=False))


def _bleu(guesses: list[Words], truths: list[list[Words]]) -> tuple[float, float, float, float]:
    """Papineni et al. 2002, "BLEU", section 2: clipped precisions, brevity against the closest."""
    right, total = np.zeros(_LONGEST), np.zeros(_LONGEST)
    guess_words = truth_words = 0
    for guess, references in zip(guesses, truths, strict=True):
        guess_words += len(guess)
        # Of two equally close, the shorter.
        truth_words += min((abs(len(words) - len(guess)), len(words)) for words in references)[1]
        for k in range(_LONGEST):
            found = _ngrams(guess, k + 1)
            most: Counter[NGram] = Counter()
            for words in references:
                most |= _ngrams(words, k + 1)
            right[k] += (found & most).total()
            total[k] += found.total()
    precisions = right / np.maximum(total, 1)
    brevity = math.exp(min(0.0, 1 - truth_words / guess_words)) if guess_words else 0.0
    means = np.cumprod(precisions) ** (1 / np.arange(1, _LONGEST + 1))
    one, two, three, four = (brevity * means).tolist()
    return one, two, three, four


def _rouge_l(guess: Words, references: list[Words]) -> float:
    """Lin 2004, "ROUGE", section 3; the best precision and recall may be of two references."""
    shared = [_common_length(guess, words) for words in references]
    if not any(shared):
        return 0.0
    precision = max(shared) / len(guess)
    recall = max(length / len(words) for length, words in zip(shared, references, strict=True))
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_length(one: Words, other: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        # `diagonal` is the entry up left, overwritten as the row moves on.
        diagonal = 0
        for k, candidate in enumerate(other, 1):
            above = row[k]
            row[k] = diagonal + 1 if word == candidate else max(above, row[k - 1])
            diagonal = above
    return row[-1]


def _cider(guesses: list[Words], truths: list[list[Words]]) -> float:
    """Vedantam et al. 2015, "CIDEr", CIDEr-D: similarity of n-grams weighed by their rarity."""
    scores = np.zeros(len(guesses))
    for length in range(1, _LONGEST + 1):
        counts = [[_ngrams(words, length) for words in references] for references in truths]
        frames_with: Counter[NGram] = Counter()
        for one in counts:
            frames_with.update(set().union(*one))
        for frame, guess in enumerate(guesses):
            mine = _weighed(_ngrams(guess, length), frames_with, len(guesses))
            for words, count in zip(truths[frame], counts[frame], strict=True):
                theirs = _weighed(count, frames_with, len(guesses))
                shared = sum(
                    min(mine[gram], theirs[gram]) * theirs[gram] for gram in mine.keys() & theirs
                )
                norms = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                if norms:
                    off = (len(guess) - len(words)) / _SIGMA_WORDS
                    similarity = shared / norms * math.exp(-(off**2) / 2)
                    scores[frame] += 10 * similarity / (_LONGEST * len(truths[frame]))
    return float(scores.mean())


def _weighed(
    counts: Counter[NGram], frames_with: Counter[NGram], frame_count: int
) -> dict[NGram, float]:
    """Weigh each n-gram by the log of how many times more frames there are than hold it."""
    return {
        gram: count * math.log(frame_count / max(1, frames_with[gram]))
        for gram, count in counts.items()
    }
