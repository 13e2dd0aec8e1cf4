"""Locks that are waited for, and not for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgevision.bundle.locking import try_lock, waited_lock


def test_who_waits_too_long_is_told_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    held = try_lock(path)
    assert held is not None
    message = f"process {os.getpid()} has held the lock for 0 s; wait for it, or end it"
    with pytest.raises(TimeoutError, match=message), waited_lock(path, timeout_s=0.0):
        raise AssertionError("it is held")
    os.close(held)
    with waited_lock(path, timeout_s=0.0):
        assert try_lock(path) is None


def test_a_link_or_a_pipe_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="links"):
        try_lock(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    os.mkfifo(tmp_path / "pipe")
    lock = try_lock(tmp_path / "pipe")  # opened at once: nobody waits for a writer
    assert lock is not None
    os.close(lock)
