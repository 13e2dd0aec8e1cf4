"""What every benchmark takes and leaves behind: its arguments, its figures, what they ran on."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import perf_counter

from edgevision.machine.environment import environment

_CPU_TIMES = Path("/proc/stat")
_IDLE = (3, 4)
"""Where a line of /proc/stat has the time without work and the wait for disks."""


def arguments(document: str | None, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser of what all scripts take; `rounds` is the default of those that have them."""
    parser = argparse.ArgumentParser(description=(document or "").partition("\n")[0])
    parser.add_argument("--json-file", type=Path, metavar="FILE", help="where to keep the figures")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="rounds of each ratio")
    return parser


def record(path: Path, **told: object) -> None:
    """Write figures as JSON, with the machine and what else it did since this was imported."""
    where = {**environment(), "others": _others()}
    path.write_text(json.dumps({"environment": where, **told}, indent=1) + "\n")


def _busy_s() -> float | None:
    """Return the seconds that all cores worked since the start of the machine."""
    try:
        ticks = [int(part) for part in _CPU_TIMES.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    working = sum(count for place, count in enumerate(ticks) if place not in _IDLE)
    return working / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Return the seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


_START = perf_counter(), _busy_s(), _own_s()


def _others() -> str:
    began, busy_s, own_s = _START
    now_busy_s = _busy_s()
    if busy_s is None or now_busy_s is None:
        return "not told by this system"
    theirs_s = now_busy_s - busy_s - (_own_s() - own_s)
    return f"{max(theirs_s, 0.0) / (perf_counter() - began):.1f}"
