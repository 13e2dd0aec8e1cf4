"""TOML files of a user's own, bounded: a target's profile, a build's arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgevision._optional import require
from edgevision.bundle.files import read_plain
from edgevision.errors import FileReadError

_MAX_FILE_BYTES = 64 << 10


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Return what a TOML file holds.

    Args:
        path: the file.
        kind: what it is expected to be, e.g. "a target file", for messages.

    Raises:
        FileReadError: it cannot be read, is too large, or is not TOML.
        MissingDependencyError: Python 3.10 has no reader of its own.
    """
    try:
        content = read_plain(path, max_bytes=_MAX_FILE_BYTES, follow_links=True)
        return parse_toml(content.decode("utf-8"))
    except OSError as error:
        raise FileReadError(
            f"'{path}' cannot be read as {kind}: {error.strerror or error}"
        ) from error
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's
        raise FileReadError(f"'{path}' is not a TOML file: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML document says.

    Raises:
        ValueError: it is not TOML.
    """
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", extra="export")
    parsed: dict[str, Any] = toml.loads(text)
    return parsed
