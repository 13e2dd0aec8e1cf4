"""What is kept between runs, for this user alone: where, and bytes behind their SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_MAX_CACHE_BYTES = 1 << 30


def cache_root() -> Path:
    """Return EDGEVISION_CACHE, or edgevision/ in XDG_CACHE_HOME or ~/.cache.

    Raises:
        FileNotFoundError: this user has no home.
    """
    if chosen := os.environ.get("EDGEVISION_CACHE"):
        return Path(chosen)
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise FileNotFoundError(
            f"the cache has no place: {error} Set EDGEVISION_CACHE to a folder."
        ) from error
    return root / "edgevision"


def read_cache(path: Path) -> bytes | None:
    """Return what `write_cache` wrote; None if it is missing, damaged, or of somebody else.

    The file holds code for the GPU, so another user's is never taken.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.getuid() or info.st_size > _MAX_CACHE_BYTES:
                return None
            digest, kernels = file.read(32), file.read()
    except OSError:
        return None
    return kernels if hashlib.sha256(kernels).digest() == digest else None


def write_cache(path: Path, kernels: bytes) -> None:
    """Write the kernels behind their SHA-256, whole or not at all, for this user alone.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(kernels).digest() + kernels)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
