"""What the numbers of a caption mean: a list of words, or a tokenizer of Hugging Face's library.

Both travel in the bundle as one JSON file, and are checked before anything uses them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from edgevision._optional import require
from edgevision.bundle.printable import UNPRINTABLE
from edgevision.errors import BundleFormatError

MAX_BYTES = 16 << 20
"""Largest vocabulary file that is read."""

MAX_TOKENS = 1 << 20
_LONGEST_TOKEN = 256
# As in a manifest: what a terminal would obey, or what cannot be written out again.
_NO_SPACE_BEFORE = frozenset(",.;:!?)")


class Vocabulary(Protocol):
    """Words by number.

    Attributes:
        kind: how the file is read again, "words" or "huggingface".
        size: how many numbers there are.
    """

    kind: str
    size: int

    def text(self, ids: Sequence[int]) -> str:
        """Return the caption that `ids` spell, without start and end."""

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return each number's own word or piece, to stand beside its attention."""

    def number(self, token: str) -> int | None:
        """Return the number of `token`, or None."""

    def to_bytes(self) -> bytes:
        """Return the file's content."""


class WordList:
    """A vocabulary of whole words, in the order of the net's outputs."""

    kind = "words"

    def __init__(self, tokens: Sequence[str]) -> None:
        """Take the words.

        Raises:
            ValueError: they are too many or none, not text, too long, unprintable, or not distinct.
        """
        if isinstance(tokens, str) or not 1 <= len(tokens) <= MAX_TOKENS:
            found = "a string" if isinstance(tokens, str) else f"{len(tokens)} words"
            raise ValueError(f"vocabulary: got {found}, expected a list of 1 to {MAX_TOKENS}")
        for number, token in enumerate(tokens):
            if not isinstance(token, str) or not 1 <= len(token) <= _LONGEST_TOKEN:
                raise ValueError(
                    f"vocabulary: word {number} is {token!r:.60}, expected 1 to {_LONGEST_TOKEN} "
                    "characters"
                )
            if UNPRINTABLE.search(token):
                raise ValueError(f"vocabulary: word {number} is unprintable: {token!r:.60}")
        self._tokens = tuple(tokens)
        self._numbers = {token: number for number, token in enumerate(tokens)}
        if len(self._numbers) != len(tokens):
            twice = next(t for n, t in enumerate(tokens) if self._numbers[t] != n)
            raise ValueError(f"vocabulary: '{twice}' stands twice")
        self.size = len(tokens)

    def text(self, ids: Sequence[int]) -> str:
        """Return the words with spaces between, and none before a comma or a full stop."""
        parts: list[str] = []
        for word in self.words(ids):
            if parts and word[0] not in _NO_SPACE_BEFORE and not word.startswith("'"):
                parts.append(" ")
            parts.append(word)
        return "".join(parts)

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return each number's word."""
        return [self._tokens[number] for number in ids]

    def number(self, token: str) -> int | None:
        """Return the number of `token`, or None."""
        return self._numbers.get(token)

    def to_bytes(self) -> bytes:
        """Return the words as a JSON list."""
        return (json.dumps(self._tokens, ensure_ascii=False, indent=0) + "\n").encode()


class HuggingFaceTokenizer:
    """A tokenizer.json of Hugging Face's `tokenizers`, for nets that speak in pieces of words."""

    kind = "huggingface"

    def __init__(self, content: bytes) -> None:
        """Read the content of a tokenizer.json.

        Raises:
            ValueError: the library does not take it.
            MissingDependencyError: the library is not installed.
        """
        tokenizers = require("tokenizers", extra="tokenizers")
        if len(content) > MAX_BYTES:
            raise ValueError(f"tokenizer: {len(content)} bytes, at most {MAX_BYTES} are read")
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(content.decode())
            self.size = int(self._tokenizer.get_vocab_size())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise ValueError(f"no tokenizer.json of tokenizers: {str(error)[:200]}") from error
        self._content = content

    def text(self, ids: Sequence[int]) -> str:
        """Return what the tokenizer makes of `ids`, special tokens left out."""
        return UNPRINTABLE.sub(" ", self._tokenizer.decode(list(ids)).strip())

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return each number's piece of text."""
        pieces = [self._tokenizer.decode([number], skip_special_tokens=False) for number in ids]
        return [UNPRINTABLE.sub(" ", piece) for piece in pieces]

    def number(self, token: str) -> int | None:
        """Return the number of `token`, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def to_bytes(self) -> bytes:
        """Return the file as it was read."""
        return self._content


def read_vocabulary(kind: object, content: bytes) -> Vocabulary:
    """Read a bundle's vocabulary file, which is hostile until this returned.

    Raises:
        BundleFormatError: it is none.
        MissingDependencyError: it needs a library that is not installed.
    """
    if len(content) > MAX_BYTES:
        raise BundleFormatError(f"vocabulary: {len(content)} bytes, at most {MAX_BYTES} are read")
    try:
        if kind == "huggingface":
            return HuggingFaceTokenizer(content)
        if kind == "words":
            parsed = json.loads(content.decode())
            if isinstance(parsed, list):
                return WordList(parsed)
            raise ValueError(f"expected a list of words, got {type(parsed).__name__}")
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"vocabulary: {error}") from error
    raise BundleFormatError(f"vocabulary: its kind is {kind!r:.40}, not words or huggingface")
