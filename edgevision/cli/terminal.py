"""What goes to a terminal: JSON for machines, a progress bar where somebody looks."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

from edgevision.bundle.printable import printable, printable_lines
from edgevision.errors import FileWriteError
from edgevision.progress import Progress, silent
from edgevision.tasks.outputs import MARK, refuse_foreign

_MAX_BAD = 20


class _Escaping:
    """A terminal's stream to which a stranger's text goes with its control characters escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable_lines(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Escape what goes to stdout and stderr, a log's last resort and warnings too."""
    out, err = cast(TextIO, _Escaping(sys.stdout)), cast(TextIO, _Escaping(sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class _Bar:
    """A progress bar on one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        # Under the escaping, for a bar is drawn with codes of our own.
        self._stream: TextIO = getattr(stream, "_stream", stream)
        self._drawn = ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        share = min(1.0, done / total) if total else 0.0
        filled = math.floor(share * 24)
        bar = f"[{'#' * filled}{'.' * (24 - filled)}] {done}/{total}" if total else f"{done}"
        line = f"{printable(phase)[:40]:40} {bar}"
        if line != self._drawn:
            self._stream.write(f"\r\x1b[K{line}")
            self._stream.flush()
            self._drawn = line

    def clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a progress callback: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    bar = _Bar(sys.stderr)
    try:
        yield bar
    finally:
        bar.clear()


def print_bad(reasons: Sequence[str]) -> None:
    """Print why frames were passed over, the first of them."""
    for reason in reasons[:_MAX_BAD]:
        print(f"passed over: {reason}")
    if len(reasons) > _MAX_BAD:
        print(f"passed over: {len(reasons) - _MAX_BAD} more")


def put_json(options: argparse.Namespace, document: object) -> bool:
    """Keep a command's JSON document; return whether it is printed in place of text."""
    options.document = document
    return bool(options.json)


def deliver_json(options: argparse.Namespace) -> None:
    """Print the document that a command left (`--json`), write it (`--json-file`), or both.

    Raises:
        FileWriteError: the file cannot be written.
    """
    if options.document is None:
        return
    if options.json_file is not None:
        try:
            options.json_file.write_text(_as_text(_marked(options.document)) + "\n", "utf-8")
        except OSError as error:
            raise FileWriteError(
                f"--json-file: could not write '{options.json_file}': {error.strerror}"
            ) from error
    if options.json:
        print(_as_text(options.document))


def check_json_file(options: argparse.Namespace) -> None:
    """Refuse, before the work, a file for the document that edgevision did not make.

    Raises:
        FileWriteError: there is such a file, and no `--force`.
    """
    if options.json_file is None:
        return
    try:
        refuse_foreign([options.json_file], force=getattr(options, "force", False))
    except FileWriteError:
        options.json_file = None  # where the error's own document would go
        raise


def _as_text(document: object) -> str:
    return json.dumps(document, indent=1, default=str, allow_nan=False)


def _marked(document: object) -> object:
    """Return the document with the remark by which a later run knows that the file is ours."""
    if isinstance(document, dict):
        return {"remark": MARK, **document}
    if isinstance(document, list):
        return [_marked(entry) for entry in document]
    return document
