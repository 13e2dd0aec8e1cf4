"""Exit codes, and which error ends a command with which.

0 done, 1 the answer is no (parity, hashes or a check failed), 2 wrong use, unreadable input or
unwritable output, 3 something is missing on this machine (free memory, too), 4 an artifact is
pending on its target, 130 interrupted.
"""

from __future__ import annotations

from edgevision.errors import (
    BuildError,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    EdgeVisionError,
    ExportError,
    FileReadError,
    FileWriteError,
    FrameError,
    InsufficientMemoryError,
    MissingDependencyError,
    ParityError,
    PendingError,
    SignatureError,
    UnverifiedError,
    WrongTaskError,
)

OK, NO, WRONG_USE, MISSING, PENDING, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 4, 130, 141

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, INTERRUPTED),
    (PendingError, PENDING),
    (MissingDependencyError, MISSING),
    (ParityError, NO),
    (BundleIntegrityError, NO),
    (SignatureError, NO),
    (UnverifiedError, NO),
    (ExportError, NO),
    (InsufficientMemoryError, MISSING),
    (BuildError, NO),
    (BundleFormatError, WRONG_USE),
    (BundleError, MISSING),
    (FileReadError, WRONG_USE),
    (FileWriteError, WRONG_USE),
    (FrameError, WRONG_USE),
    (WrongTaskError, WRONG_USE),
    (EdgeVisionError, NO),
    (ValueError, WRONG_USE),
    (OSError, MISSING),
    (MemoryError, MISSING),
)

KNOWN = tuple(kind for kind, _ in _CODES)
"""Errors that a person is told of; every other one is a bug."""


def exit_code(error: BaseException) -> int:
    """Return the exit code that `error` ends the command with.

    A Ctrl-C inside a compiled import comes out as that import's own error.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return INTERRUPTED
        cause = cause.__cause__ or cause.__context__
    return next(code for kind, code in _CODES if isinstance(error, kind))
