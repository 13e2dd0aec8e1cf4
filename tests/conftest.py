"""What holds for every test: a time limit per directory, no skips in unit, skips counted."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TIME_LIMITS_S = {
    "architecture": 120,
    "batch": 120,
    "bench": 60,
    "cli": 300,
    "contract": 120,
    "deploy": 300,
    "device": 300,
    "docs": 300,
    "engines": 300,
    "export": 300,
    "fuzz": 300,
    "gpu": 300,
    "pipeline": 300,
    "runtime": 60,
    "standin": 900,
    "unit": 60,
}
# Files that take longest, by need: they start first, so that no worker ends alone.
LONGEST_FIRST = ("cli", "export", "standin", "deploy", "device", "engines")
NEVER_SKIPPED = ("tests/unit/", "tests/architecture/")

# Nothing is kept in the home of whoever runs the tests.
_state = tempfile.TemporaryDirectory(prefix="edgevision-state-")
os.environ["EDGEVISION_STATE"] = _state.name

# Workers share the cores: two teams of threads on the same cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests do not time, and a run on a clean clone must not find what the last one did not.
settings.register_profile("edgevision", deadline=None, derandomize=True)
settings.load_profile("edgevision")

# A shell starts its background jobs with Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
_skips: list[tuple[str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        directory = item.path.relative_to(_HERE).parts[0]
        if directory not in TIME_LIMITS_S:
            raise pytest.UsageError(f"{item.nodeid}: tests/{directory} is not listed in conftest")
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMITS_S[directory]))
    items.sort(key=_turn)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every garbage collection of the run: millions of objects."""
    gc.collect()
    gc.freeze()


def _turn(item: pytest.Item) -> int:
    directory = item.path.relative_to(_HERE).parts[0]
    return (*LONGEST_FIRST, directory).index(directory)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def _note(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        _skips.append((report.nodeid, str(reason).removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _forbidden():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(reason for _, reason in _skips)
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    terminalreporter.write_line(f"skipped: {len(_skips)}" + (f" ({counted})" if counted else ""))
    for nodeid in _forbidden():
        terminalreporter.write_line(f"ERROR {nodeid}: nothing may be skipped here", red=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker of pytest-xdist ended that should not have; by itself it says nothing."""
    if error:
        popen = node.gateway._io.popen
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(10)
        code = "none, it still runs" if popen.returncode is None else popen.returncode
        print(f"\n[{node.gateway.id}] return code: {code}", file=sys.stderr, flush=True)


def _forbidden() -> list[str]:
    return [nodeid for nodeid, _ in _skips if nodeid.startswith(NEVER_SKIPPED)]
