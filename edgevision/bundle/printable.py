"""Text of strangers: what of it may reach a terminal, a log or a page, and in which form.

A name can hold codes that move a terminal's cursor, a line break that forges a line of a log, or a
mark that turns the direction of writing, behind which a command looks like another one.
"""

from __future__ import annotations

import re

# C0 and C1 control characters, marks of direction and their ends, line and paragraph separators,
# halves of surrogate pairs, invisible tags.
UNPRINTABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
UNPRINTABLE_BUT_LINES = re.compile(
    UNPRINTABLE.pattern.replace("\\x00-\\x1f", "\\x00-\\x08\\x0b-\\x1f")
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def printable(text: object) -> str:
    """Return `text` on one line, every character that is not for the eye written as an escape."""
    return UNPRINTABLE.sub(_escape, str(text))


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, but for its line breaks and tabs."""
    return UNPRINTABLE_BUT_LINES.sub(_escape, text)


def markdown(text: object) -> str:
    """Return `text` so that Markdown shows it as it is, also in a table."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 256:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
