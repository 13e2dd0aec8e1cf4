"""The folder of a target's finished engines, held by one builder at a time."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from edgevision.bundle.files import open_folder
from edgevision.bundle.locking import waited_lock
from edgevision.bundle.record import RECORD
from edgevision.errors import BundleError
from edgevision.progress import Progress

_LOCK = ".lock"
# What `staged`, the graph beside it and the builder's process write, and nothing else.
_PARTIAL = re.compile(r"\.?\.partial-[\w.-]+-[0-9a-f]{8,16}(\.graph)?")


@contextlib.contextmanager
def held_folder(folder: Path, progress: Progress, *, is_named: bool) -> Iterator[None]:
    """Hold the folder for one builder: two builders of one target take turns.

    Where the user named it, it may be anything: a link, or somebody else's folder, is refused, and
    nothing is removed that we did not make. Only the folder above it may be a link then.
    """
    with _writing(folder), contextlib.ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        above = stack.enter_context(open_folder(folder.parent, follow_links=is_named))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder.name, 0o755, dir_fd=above)
        opened = stack.enter_context(open_folder(folder.name, is_ours=True, folder=above))
        there = set(os.listdir(opened))
        if not there & {_LOCK, RECORD} and any(name[0] != "." for name in there):
            raise BundleError(
                f"'{folder}' is not a folder of finished engines, and nothing in it is replaced. "
                "Give another: --engines DIR, and the same to load as engines="
            )
        stack.enter_context(
            waited_lock(
                _LOCK,
                folder=opened,
                waiting=lambda s: progress("waiting for another build of it, s", int(s), 0),
            )
        )
        for name in filter(_PARTIAL.fullmatch, os.listdir(opened)):
            if stat.S_ISREG(os.lstat(name, dir_fd=opened).st_mode):
                os.unlink(name, dir_fd=opened)
        yield


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"could not write '{folder}': {error.strerror or error}. Give another folder: "
            "--engines DIR, and the same to load as engines="
        ) from error
