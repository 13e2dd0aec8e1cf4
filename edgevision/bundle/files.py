"""Files as they may come from a stranger: one bounded read, and one write that is whole or nothing.

A FIFO makes a plain `open` wait for ever, a device gives bytes without an end, a link leads out of
the folder that was checked. So a file is opened without waiting, asked what it is, and measured,
before a byte of it is read. Every failure is an OSError whose `strerror` says what it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


def open_plain(
    path: PathLike,
    *,
    max_bytes: int,
    follow_links: bool = False,
    is_ours: bool = False,
    folder: int | None = None,
) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: where it is.
        max_bytes: a larger file is refused unread.
        follow_links: take a link in the last part of the path for what it leads to: right for what
            a user names (data sets, mounted secrets and download caches are full of links), wrong
            for what is believed because of the folder that it lies in.
        is_ours: refuse a file that belongs to another user than this one or root, or that others
            may write.
        folder: descriptor of the folder that `path` is relative to.

    Raises:
        OSError: it is missing, not a regular file, too large, behind a link, or of somebody else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | (0 if follow_links else os.O_NOFOLLOW), dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise _refused(path, errno.ELOOP, "it is a link") from error
        if error.errno == errno.ENXIO:  # a socket
            raise _refused(path, errno.EINVAL, "it is not a regular file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, errno.EINVAL, "it is not a regular file")
        if is_ours:
            check_ours(status, path)
        if status.st_size > max_bytes:
            raise _refused(path, errno.EFBIG, f"it is larger than {max_bytes} bytes")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(
    path: PathLike,
    *,
    max_bytes: int,
    follow_links: bool = False,
    is_ours: bool = False,
    folder: int | None = None,
) -> bytes:
    """Return a regular file's content; see `open_plain`.

    Raises:
        OSError: as `open_plain`, or the file grew while it was read.
    """
    with open_plain(
        path, max_bytes=max_bytes, follow_links=follow_links, is_ours=is_ours, folder=folder
    ) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        content = file.read(size_bytes + 1)
    if len(content) > size_bytes:
        raise _refused(path, errno.EFBIG, "it grew while it was read")
    return content


@contextlib.contextmanager
def open_folder(
    path: PathLike, *, is_ours: bool = False, follow_links: bool = False, folder: int | None = None
) -> Iterator[int]:
    """Give the descriptor of a folder; what is opened below it cannot be exchanged by its path.

    Args:
        path: where it is.
        is_ours: refuse a folder that belongs to another user than this one or root, or that
            everybody may write.
        follow_links: see `open_plain`.
        folder: descriptor of the folder that `path` is relative to.

    Raises:
        OSError: it is missing, no folder, behind a link, or of somebody else.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | (0 if follow_links else os.O_NOFOLLOW), dir_fd=folder)
    except OSError as error:
        # Linux says ENOTDIR of a link that it was told not to follow.
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and not follow_links:
            raise _refused(path, error.errno, "it is a link, or no folder") from error
        raise
    try:
        if is_ours:
            check_ours(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def check_ours(status: os.stat_result, path: PathLike) -> None:
    """Refuse what another user than this one or root owns, or may write.

    Raises:
        PermissionError: it is so.
    """
    if status.st_uid not in (0, os.geteuid()):
        raise _refused(path, errno.EPERM, "it is another user's")
    if status.st_mode & stat.S_IWOTH:
        raise _refused(path, errno.EPERM, "everybody may write it")


@contextlib.contextmanager
def staged(target: PathLike) -> Iterator[Path]:
    """Give a path beside `target`, and put what was written there in its place, if nothing fails.

    The path has a name that nobody can guess; where a child process writes there, so that it
    cannot be opened here first, the folder must be this user's own.

    Raises:
        OSError: it could not be put in place; nothing is left.
    """
    target = Path(target)
    partial = target.with_name(f".partial-{target.stem}-{secrets.token_hex(8)}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(
    target: PathLike, content: bytes, *, mode: int = 0o666, beside: PathLike | None = None
) -> None:
    """Write a file, replacing one that is there: whole, or not at all.

    Args:
        target: its path.
        content: its bytes.
        mode: its permissions, before the umask.
        beside: the path beside which it is written first; `target` itself by default.

    Raises:
        OSError: it could not be written; what was there before stays.
    """
    near = Path(target if beside is None else beside)
    partial = near.with_name(f".partial-{near.stem}-{secrets.token_hex(8)}")
    write_new(partial, content, mode=mode)
    try:
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_new(path: PathLike, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file that must not be there yet, not even as a link.

    Raises:
        OSError: it is there, or could not be written; then nothing is left of it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _refused(path: PathLike, code: int, reason: str) -> OSError:
    return OSError(code, reason, os.fspath(path))
