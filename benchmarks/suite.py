"""Runs a suite of benchmarks one after the other, keeps their figures, and writes the tables.

    python -m benchmarks.suite cpu [--only NAME ...]

A suite is a TOML file in `benchmarks/suites`: which script, with which arguments, the seconds that
it may take, and the name of its JSON in `benchmarks/results`. What one script leaves of its seconds
is the next one's; a script that runs out of them is ended, and its last figures stay. Exits with 1
if a script failed or missed a bar of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from benchmarks import tables
from benchmarks.script import record
from edgevision._optional import require

HERE = Path(__file__).parent
OK, MISSED, FAILED, ENDED = "ok", "missed a bar", "failed", "out of time"


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a script.

    Attributes:
        script: a module of `benchmarks`.
        result: the name of its JSON; a short run has a name of its own, beside the long one's.
        budget_s: what it may take.
        arguments: what it is given besides --json-file.
    """

    script: str
    result: str
    budget_s: float
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an entry: one of "ok", "missed a bar", "failed" and "out of time"."""

    entry: Entry
    seconds: float
    outcome: str


def read(name: str) -> list[Entry]:
    """Return the entries of a suite.

    Raises:
        FileNotFoundError: there is no such suite.
        TypeError, KeyError: an entry lacks something, or has too much.
    """
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", extra="export")
    told = toml.loads((HERE / "suites" / f"{name}.toml").read_text("utf-8"))
    return [
        Entry(arguments=tuple(entry.pop("arguments", ())), **entry) for entry in told.pop("run")
    ]


def run(entry: Entry, limit_s: float, results: Path) -> Outcome:
    """Run a script to its end or for `limit_s`; its figures replace the last ones only if whole."""
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.json"
        command = [sys.executable, "-m", f"benchmarks.{entry.script}", *entry.arguments]
        code = _exit_code([*command, "--json-file", str(made)], limit_s)
        if made.exists():
            (results / f"{entry.result}.json").write_bytes(made.read_bytes())
            outcome = MISSED if code else OK
        else:
            outcome = ENDED if code is None else FAILED
    return Outcome(entry, perf_counter() - start, outcome)


def _exit_code(command: Sequence[str], limit_s: float) -> int | None:
    """Return how a command ended; None if it was ended, with all that it had started."""
    # A session of its own, so that its workers and hogs end with it.
    process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
    try:
        return process.wait(max(limit_s, 0.0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_all(entries: Sequence[Entry], results: Path) -> list[Outcome]:
    """Run one after the other, whatever becomes of each."""
    outcomes: list[Outcome] = []
    due = perf_counter()
    for number, entry in enumerate(entries, 1):
        due += entry.budget_s
        limit_s = due - perf_counter()
        what = " ".join((entry.script, *entry.arguments))
        print(f"[{number}/{len(entries)}] {what}: {limit_s:.0f} s at most", flush=True)
        outcomes.append(run(entry, limit_s, results))
        print(f"    {outcomes[-1].outcome} after {outcomes[-1].seconds:.0f} s", flush=True)
    return outcomes


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", help="a file of benchmarks/suites, without .toml")
    parser.add_argument("--only", nargs="+", metavar="RESULT", help="of the suite, by result")
    return parser


def main() -> int:
    options = parser().parse_args()
    entries = read(options.suite)
    if options.only:
        entries = [entry for entry in entries if entry.result in options.only]
    results = HERE / "results"
    outcomes = run_all(entries, results)
    if not options.only:
        record(results / f"suite-{options.suite}.json", rows=[asdict(found) for found in outcomes])
    tables.write()
    whole_s = sum(found.seconds for found in outcomes)
    print(f"{options.suite}: {whole_s / 60:.1f} minutes; the tables are in {tables.PAGE}")
    bad = [found for found in outcomes if found.outcome != OK]
    for found in bad:
        print(f"{found.entry.result}: {found.outcome}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
