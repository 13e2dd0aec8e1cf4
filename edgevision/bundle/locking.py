"""A lock file that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK_TIMEOUT_S = 2 * 3600.0
"""How long one build waits for another of the same engine."""

_POLL_S = 0.05


@contextlib.contextmanager
def waited_lock(
    path: str | os.PathLike[str],
    *,
    folder: int | None = None,
    timeout_s: float = LOCK_TIMEOUT_S,
    waiting: Callable[[float], None] = lambda _: None,
) -> Iterator[int]:
    """Hold `path` alone, waiting for whoever holds it.

    Args:
        path: the lock file, made if it is missing.
        folder: descriptor of the folder that `path` is relative to.
        timeout_s: how long it waits.
        waiting: told how many seconds it has waited.

    Raises:
        TimeoutError: somebody held it all the time; says who.
        OSError: it cannot be opened.
    """
    began = time.monotonic()
    while (lock := try_lock(path, folder=folder)) is None:
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise TimeoutError(
                errno.ETIMEDOUT,
                f"process {_holder(path, folder)} has held the lock for {timeout_s:g} s; wait for "
                "it, or end it",
                os.fspath(path),
            )
        waiting(waited_s)
        time.sleep(_POLL_S)
    try:
        yield lock
    finally:
        os.close(lock)


def try_lock(path: str | os.PathLike[str], *, folder: int | None = None) -> int | None:
    """Return the descriptor that holds `path` alone until it is closed; None if somebody else does.

    Also None if whoever held it before removed the file that was opened here: try again.

    Args:
        path: the lock file, made if it is missing.
        folder: descriptor of the folder that `path` is relative to.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(path, flags, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _holder(path: str | os.PathLike[str], folder: int | None) -> str:
    """Return the number of the process that holds a lock, as the kernel tells it."""
    with contextlib.suppress(OSError):
        inode = str(os.stat(path, dir_fd=folder, follow_symlinks=False).st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == inode:
                return fields[4]
    return "?"
