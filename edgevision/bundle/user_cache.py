"""What is kept between runs, only for this user: where, and bytes behind their SHA-256."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edgevision.bundle.files import read_plain, write_whole

_MAX_CACHE_BYTES = 1 << 30


def cache_root() -> Path:
    """Return EDGEVISION_CACHE, or edgevision/ in XDG_CACHE_HOME or ~/.cache.

    Raises:
        FileNotFoundError: this user has no home.
    """
    return user_folder("EDGEVISION_CACHE", "XDG_CACHE_HOME", ".cache")


def user_folder(variable: str, xdg: str, below_home: str) -> Path:
    """Return the folder that `variable` names, or edgevision/ where XDG puts such things.

    Raises:
        FileNotFoundError: this user has no home.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen)
    try:
        root = Path(os.environ.get(xdg) or Path.home() / below_home)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"there is no place for what is kept: {error} Set {variable} to a folder."
        ) from error
    return root / "edgevision"


def read_cache(path: Path) -> bytes | None:
    """Return what `write_cache` wrote; None if it is missing, damaged, or of somebody else.

    The file holds code for the GPU, so another user's is never taken.
    """
    try:
        content = read_plain(path, max_bytes=_MAX_CACHE_BYTES, is_ours=True)
    except OSError:
        return None
    digest, kernels = content[:32], content[32:]
    return kernels if hashlib.sha256(kernels).digest() == digest else None


def write_cache(path: Path, kernels: bytes) -> None:
    """Write the kernels behind their SHA-256, whole or not at all, only for this user.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, hashlib.sha256(kernels).digest() + kernels, mode=0o600)
