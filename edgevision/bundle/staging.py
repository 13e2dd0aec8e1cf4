"""A directory that is written aside and put in place at once, replacing the one that was there.

Beside `road.ev` a writer makes `.road.ev.partial-<pid>-<random>/` with `lock` (held while it lives,
freed by the kernel when it dies), `new/`, and, for a moment, `old/`. Where the file system can
exchange two names (ext4, xfs, btrfs, tmpfs) there is a whole directory at the path at every moment.
Elsewhere two renames do it: a crash between them leaves nothing at the path and both directories
whole in the partial one, from where `recover` puts the old one back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from edgevision.bundle.locking import try_lock

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class Staging:
    """The partial directory of one writer; write into `folder`, then `put_in_place`."""

    def __init__(self, path: Path) -> None:
        """Clear up after dead writers to `path`, and make the partial directory.

        Raises:
            OSError: the directory could not be made.
        """
        self.path = path
        recover(path)
        lock = None
        while lock is None:  # A writer beside us may take what is not locked yet for a dead one's.
            random = secrets.token_hex(4)
            self._partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{random}")
            os.mkdir(self._partial)
            try:
                lock = _lock(self._partial)
            except FileNotFoundError:
                continue
            except BaseException:
                shutil.rmtree(self._partial, ignore_errors=True)
                raise
        self._lock = lock
        self.folder = self._partial / "new"
        self._old = self._partial / "old"
        try:
            os.mkdir(self.folder)
        except BaseException:
            self.close()
            raise

    def put_in_place(self) -> None:
        """Make `folder` the directory at `path`; the one that was there is gone on `close`.

        Raises:
            OSError: it could not be moved; what was at `path` is untouched.
        """
        for folder, _, _ in os.walk(self.folder):
            _flush_directory(Path(folder))
        while True:
            try:
                if os.path.lexists(self.path):
                    _replace(self.path, self.folder, self._old)
                else:
                    os.rename(self.folder, self.path)
                break
            except OSError as error:
                # Another writer put its own there, or took it away, since the line above looked.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                if not self.folder.exists():
                    raise
        _flush_directory(self.path.parent)

    def close(self) -> None:
        """Remove the partial directory; an old one that has not been replaced goes back."""
        try:
            _discard(self._partial, self.path)
        except KeyboardInterrupt:
            # Ctrl-C is as likely here as while writing, and no reason to leave half of it behind.
            _discard(self._partial, self.path)
            raise
        finally:
            os.close(self._lock)


def recover(path: Path) -> None:
    """Remove what dead writers to `path` left beside it, and put an old directory back."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.partial-\d+-[0-9a-f]{{8}}")
    try:
        beside = [entry for entry in os.scandir(path.parent) if leftover.fullmatch(entry.name)]
    except OSError:
        return
    for entry in beside:
        partial = Path(entry.path)
        try:
            mine = entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if not (mine and entry.is_dir(follow_symlinks=False)):
                continue
            lock = _lock(partial)
        except OSError:
            continue
        if lock is not None:
            try:
                _discard(partial, path)
            finally:
                os.close(lock)


def _discard(partial: Path, path: Path) -> None:
    old = partial / "old"
    if old.exists() and not os.path.lexists(path):
        os.rename(old, path)
    shutil.rmtree(partial, ignore_errors=True)


def _lock(partial: Path) -> int | None:
    """Lock `partial`; None while someone else holds it, or once it is gone."""
    return try_lock(partial / "lock")


def _replace(path: Path, new: Path, old: Path) -> None:
    try:
        _exchange(path, new)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE:
            raise
        shutil.rmtree(old, ignore_errors=True)  # A first try that lost a race left it.
        os.rename(path, old)
        os.rename(new, path)


def _exchange(a: Path, b: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "this C library has no renameat2")
    names = os.fsencode(a), os.fsencode(b)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(a), None, str(b))


def _flush_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
