"""Vocabularies: words by number, written and read again, and hostile files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import BundleFormatError
from edgevision.tasks.vocabulary import (
    MAX_BYTES,
    HuggingFaceTokenizer,
    WordList,
    read_vocabulary,
)

WORDS = ("<start>", "<end>", "a", "dog", ",", "'s", "tail", ".")
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [
        {"id": 0, "content": "[END]", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
    ],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": {"[END]": 0, "a": 1, "dog": 2}, "unk_token": "[END]"},
}  # fmt: skip


def test_words_are_joined_as_people_write() -> None:
    words = WordList(WORDS)
    assert words.text([2, 3, 5, 6, 4, 2, 3, 7]) == "a dog's tail, a dog."
    assert words.text([]) == ""
    assert words.words([3, 4]) == ["dog", ","]
    assert (words.number("dog"), words.number("cat")) == (3, None)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=20),
        min_size=1,
        unique=True,
    )
)
def test_what_is_written_is_read_again(tokens: list[str]) -> None:
    again = read_vocabulary("words", WordList(tokens).to_bytes())
    assert again.words(range(again.size)) == tokens


def test_a_tokenizer_travels_whole() -> None:
    content = json.dumps(TOKENIZER).encode()
    tokenizer = read_vocabulary("huggingface", content)
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    assert tokenizer.size == 3
    assert tokenizer.text([1, 2, 0]) == "a dog"
    assert tokenizer.words([2, 0]) == ["dog", "[END]"]
    assert (tokenizer.number("dog"), tokenizer.number("cat")) == (2, None)
    assert tokenizer.to_bytes() == content
    strange = HuggingFaceTokenizer(content.replace(b"dog", rb"d\u001b[2Jg"))
    assert strange.words([2]) == ["d [2Jg"]
    assert strange.text([2]) == "d [2Jg"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "got 0 words"),
        ("words", "got a string"),
        ([""], "word 0 is '', expected 1 to 256 characters"),
        (["x" * 257], "expected 1 to 256"),
        ([1], "word 0 is 1, expected"),
        (["a", "b", "a"], "'a' stands twice"),
        (["\x1b[2J"], "word 0 is unprintable"),
        (["a\u202eb"], "unprintable"),
    ],
)
def test_lists_that_are_no_vocabulary(tokens: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordList(tokens)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("words", b"{}", "expected a list of words, got dict"),
        ("words", b"[1]", "word 0 is 1"),
        ("words", b'["\\ud800"]', "unprintable"),
        ("words", b"\xff\xfe", "decode"),
        ("words", b"[" * 100_000, "vocabulary:"),
        ("words", b" " * (MAX_BYTES + 1), "at most"),
        ("pickle", b"[]", "its kind is 'pickle', not words or huggingface"),
        (None, b"[]", "its kind is None"),
        ("huggingface", b"{}", "no tokenizer.json"),
        ("huggingface", b"\x80\x04", "no tokenizer.json"),
        ("huggingface", b'{"model": {"type": "BPE", "vocab": [], "merges": 3}}', "no tokenizer"),
        ("huggingface", b"[" * 100_000, "no tokenizer.json"),
    ],
)
def test_hostile_files_are_refused(kind: object, content: bytes, message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        read_vocabulary(kind, content)
