"""Bytes kept between runs behind their SHA-256, for this user alone: compiled kernels, timings."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgevision._files import read_plain, write_whole

_MAX_CACHE_BYTES = 1 << 30


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
    """Write the kernels behind their SHA-256, whole or not at all, for this user alone.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, hashlib.sha256(kernels).digest() + kernels, mode=0o600)
