"""A lock file that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os


def try_lock(path: str | os.PathLike[str]) -> int | None:
    """Return the descriptor that holds `path` alone until it is closed; None if somebody else does.

    Also None if whoever held it before removed the file that was opened here: try again.

    Raises:
        OSError: it cannot be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
