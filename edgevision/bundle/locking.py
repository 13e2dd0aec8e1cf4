"""A lock file that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os


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
