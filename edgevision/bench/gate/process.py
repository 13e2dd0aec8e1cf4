"""A worker process of one side: started, asked line by line, ended."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from edgevision.errors import RunError


@dataclass(frozen=True, slots=True)
class Side:
    """What is measured.

    Attributes:
        name: for people.
        command: starts a worker, see `edgevision.bench.gate.worker`.
        directory: where the command runs; here if None.
        package: where its edgevision must lie, e.g. in an environment of its own; None for ours.
        variables: of the environment that its process gets; those of this process if None.
    """

    name: str
    command: tuple[str, ...]
    directory: str | None = None
    package: str | None = None
    variables: Mapping[str, str] | None = field(default=None, hash=False)


class Worker:
    """A process that runs one side when it is told to.

    Attributes:
        side: what it runs.
        started_ns: when its process was started, on the clock that its own times are of.
        told: what it said of itself, once it is ready.
    """

    def __init__(self, side: Side, log: Path) -> None:
        """Start it; what it complains of goes to `log`."""
        self.side = side
        self.told: dict[str, Any] = {}
        self._log = log
        self.started_ns = perf_counter_ns()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                side.command,
                cwd=side.directory,
                env=None if side.variables is None else dict(side.variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait_ready(self) -> None:
        """Wait until it has told what it is.

        Raises:
            RunError: it failed, told something else, or runs another edgevision than its side
                says.
        """
        line = self._line()
        try:
            self.told = dict(json.loads(line))
        except (ValueError, TypeError):
            raise RunError(
                f"the worker of '{self.side.name}' said {line.strip()[:80]!r} where it should say "
                "what it is: something in its environment prints while it is imported"
            ) from None
        expected, found = self.side.package, str(self.told.get("package"))
        if expected is not None and not Path(found).is_relative_to(os.path.realpath(expected)):
            raise RunError(f"'{self.side.name}' ran the edgevision in {found}, not in {expected}")

    def ask(self, line: str) -> str:
        """Send one line, and return the answer.

        Raises:
            RunError: it failed; gives the end of what it said.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._line()
        return self._line()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return line
        code = self._process.wait()
        tail = "\n".join(self._log.read_text(errors="replace").strip().splitlines()[-8:])
        raise RunError(f"the worker of '{self.side.name}' ended with code {code}:\n{tail}")


@contextmanager
def workers(sides: Sequence[Side]) -> Iterator[list[Worker]]:
    """Start a process for each side at once, give them when all are ready, and end them."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        started = []
        for index, side in enumerate(sides):
            worker = Worker(side, Path(folder) / f"{index}.log")
            stack.callback(worker.close)
            started.append(worker)
        for worker in started:
            worker.wait_ready()
        yield started
