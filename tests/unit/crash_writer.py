"""Publishes a bundle in forked children, each stopped at its next point; run by the crash tests.

An audit hook sees every file that is opened, made, renamed or removed, so that "the next point"
walks through the whole of publishing: python -m tests.unit.crash_writer MODE PATH
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from edgevision.bundle import staging as _staging
from edgevision.bundle.directory import Bundle
from edgevision.errors import BundleError
from tests.parts.two_stages import contents, write_bundle

_WATCHED = ("open", "os.", "shutil.", "ctypes.")


def _stop_at(point: int, mode: str) -> list[str]:
    """Let the `point`-th event of this process kill it, interrupt it, or find the disk full.

    Returns:
        The events so far; it grows.
    """
    seen: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not event.startswith(_WATCHED) or (mode == "full" and not _writes(event, arguments)):
            return
        seen.append(event)
        if len(seen) != point:
            return
        if mode.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)
    return seen


def _writes(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.mkdir", "os.rename")


def _cannot_exchange(a: Path, b: Path) -> None:
    raise OSError(errno.EINVAL, f"this file system does not exchange {a} and {b}")


def _child(path: Path, mode: str, point: int) -> int:
    if mode == "kill-without-exchange":
        _staging._exchange = _cannot_exchange
    seen = _stop_at(point, mode)
    try:
        write_bundle(path, seed=point)
    except KeyboardInterrupt:
        return 1
    except BundleError as error:
        return 1 if "No space left on device" in str(error) else 3
    return 0 if len(seen) < point else 2


def _ended(path: Path, mode: str, point: int) -> str:
    child = os.fork()
    if child == 0:
        code = 4
        try:
            code = _child(path, mode, point)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return {0: "published", 1: "gave up", 2: "went on"}.get(os.WEXITSTATUS(status), "failed")


def main(mode: str, path: Path) -> None:
    """Stop at one point after the other until none is left; print what was found."""
    found: Counter[str] = Counter()
    write_bundle(path, seed=0)
    old = contents(path)
    for point in range(1, 1000):
        end = _ended(path, mode, point)
        left = sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)
        found[end] += 1
        found["left something"] += bool(left)
        found["gone until opened"] += not path.exists()
        assert end != "failed", point
        assert end == "killed" or not left, (point, left)
        bundle = Bundle.open(path)
        assert bundle.golden("decoder"), point
        now = contents(path)
        found["replaced"] += now != old
        if end == "published":
            break
        write_bundle(path, seed=0)
        assert contents(path) == old, point
        assert [entry.name for entry in path.parent.iterdir()] == [path.name], point
        found["points"] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
