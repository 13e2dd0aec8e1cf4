"""Caption scores, against what pycocoevalcap 1.2 found on the same strings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.metrics.captions import TokenAgreement, caption_scores, token_agreement

CAPTIONS = [
    "A red bus on a wet street.",
    "two dogs run",
    "a man on a horse, and a dog on the right",
    "the the the the",
    "A bus in the street",
]
REFERENCES = [
    ["A red bus drives down a wet street.", "A bus on the street"],
    ["Two dogs run across the grass", "Dogs are running on grass", "Two brown dogs run"],
    ["a man rides a horse and a dog follows on the right"],
    ["the dog on the grass", "a dog in the grass"],
    ["A bus in the street"],
]
# pycocoevalcap 1.2 on these strings in lower case without punctuation: Bleu(4), Rouge(), Cider().
BLEU = (0.7876559870861424, 0.704500932001376, 0.6010940177619318, 0.47448501871749704)
ROUGE_L = 0.7913206399907344
CIDER = 4.207652515347671


def test_scores_are_those_of_the_coco_evaluation() -> None:
    scores = caption_scores(CAPTIONS, REFERENCES)
    assert scores.bleu == pytest.approx(BLEU, abs=1e-8)
    assert scores.rouge_l == pytest.approx(ROUGE_L, abs=1e-12)
    assert scores.cider == pytest.approx(CIDER, abs=1e-12)


def test_order_case_and_punctuation_do_not_matter() -> None:
    order = random.Random(0).sample(range(len(CAPTIONS)), len(CAPTIONS))
    scores = caption_scores(
        [CAPTIONS[k].upper().replace(",", " ;") + " !" for k in order],
        [REFERENCES[k][::-1] for k in order],
    )
    assert scores.bleu == pytest.approx(BLEU, abs=1e-8)
    assert scores.rouge_l == pytest.approx(ROUGE_L)
    assert scores.cider == pytest.approx(CIDER)


def test_a_reference_repeated_scores_full_marks() -> None:
    truths = ["a red bus on a street", "two dogs run over grass", "one grey horse stands still"]
    scores = caption_scores(truths, [[truth] for truth in truths])
    assert scores.bleu == pytest.approx((1, 1, 1, 1))
    assert scores.rouge_l == pytest.approx(1)
    assert scores.cider == pytest.approx(10)


def test_a_clipped_count_and_a_caption_too_short_by_hand() -> None:
    # Papineni et al. 2002, section 2.1: two of seven "the", as one reference holds two.
    scores = caption_scores(
        ["the the the the the the the"],
        [["the cat is on the mat", "there is a cat on the mat"]],
    )
    assert scores.bleu == pytest.approx((2 / 7, 0, 0, 0))
    # Two words for four: all are right, and the brevity penalty is exp(1 - 4 / 2).
    short = caption_scores(["a cat"], [["a cat sat down"]])
    assert short.bleu[:2] == pytest.approx([0.36787944117144233] * 2)
    # Precision 1, recall 1/2: (1 + 1.44) / 2 / (1/2 + 1.44).
    assert short.rouge_l == pytest.approx(1.22 / 1.94)
    assert short.cider == 0


def test_empty_captions_score_nothing() -> None:
    scores = caption_scores(["", "..."], [["a cat"], ["a dog"]])
    assert (scores.bleu, scores.rouge_l, scores.cider) == ((0, 0, 0, 0), 0, 0)


WORD_LISTS = st.lists(st.sampled_from(["a", "3", "left", "of"]), min_size=1, max_size=7)


@given(
    st.lists(
        st.tuples(WORD_LISTS, st.lists(WORD_LISTS, min_size=1, max_size=3)), min_size=1, max_size=4
    )
)
def test_scores_stay_in_their_ranges(frames: list[tuple[list[str], list[list[str]]]]) -> None:
    captions = [" ".join(words) for words, _ in frames]
    references = [[" ".join(words) for words in one] for _, one in frames]
    scores = caption_scores(captions, references)
    assert all(0 <= score <= 1 + 1e-12 for score in (*scores.bleu, scores.rouge_l))
    assert 0 <= scores.cider <= 10 + 1e-9


def test_token_agreement_counts_captions_and_positions() -> None:
    reference = [[1, 5, 6, 2], [1, 5, 2], [1, 2]]
    candidate = [[1, 5, 6, 2], [1, 5, 7, 2], [1, 2]]
    # Of 4, 4 and 2 positions the second caption misses two.
    assert token_agreement(reference, candidate) == TokenAgreement(captions=2 / 3, tokens=0.8)
    assert token_agreement([[]], [[]]) == TokenAgreement(captions=1, tokens=1)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 captions and references for 2 frames"):
        caption_scores(["a cat"], [["a cat"], ["a dog"]])
    with pytest.raises(ValueError, match="at least one"):
        caption_scores([], [])
    for references in ([], ["a cat", "!"]):
        with pytest.raises(ValueError, match="frame 0: got references"):
            caption_scores(["a cat"], [references])
    with pytest.raises(ValueError, match="got 0 and 1 captions"):
        token_agreement([], [[1]])
