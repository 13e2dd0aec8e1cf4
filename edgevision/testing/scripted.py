"""A program without an engine, and a stopwatch without a clock: both do as they are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from edgevision.bundle.directory import Bundle
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import RunError
from edgevision.progress import Progress
from edgevision.runtime.backends.program import Shape
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer

_SCRATCH_BYTES = 256

M = TypeVar("M")


class ScriptedProgram:
    """Fulfils `Program` on any device: each output is the first bytes of the input beside it.

    The bytes go by way of the execution's working memory, as an engine's activations do, so that
    two runs which share it without being ordered are a race.

    Args:
        device: where it runs.
        inputs: what goes in.
        outputs: what comes out; the nth has no more bytes than the nth input.
        no_graph_reason: why it cannot be captured; empty if it can.
        no_graph: the same under its name before 0.2, which goes in 0.3.
    """

    version = "scripted program"

    def __init__(
        self,
        device: Device,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        no_graph_reason: str = "",
        no_graph: str | None = None,
    ) -> None:
        if no_graph is not None:
            warnings.warn(
                "ScriptedProgram's no_graph is now no_graph_reason, and goes in 0.3",
                DeprecationWarning,
                stacklevel=2,
            )
            no_graph_reason = no_graph
        self.device = device
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.no_graph_reason = no_graph_reason
        self.scratch_bytes = max([_SCRATCH_BYTES, *(spec.size_bytes for spec in outputs)])
        self.runs = 0
        self.is_open = True
        self._failures: set[int] = set()

    def fail_at(self, run: int) -> None:
        """Let the nth run from now be refused."""
        self._failures.add(self.runs + run)

    def execution(self, scratch: Buffer | None) -> ScriptedExecution:
        """Return a new execution, with working memory of its own unless it shares some."""
        return ScriptedExecution(self, scratch)

    def close(self) -> None:
        """Free it."""
        self.is_open = False

    def count(self) -> None:
        """Count a run, and refuse it if the script says so."""
        self.runs += 1
        if self.runs in self._failures:
            raise RunError(f"run {self.runs} was refused, as the script says")


class ScriptedExecution:
    """See `Execution`."""

    def __init__(self, program: ScriptedProgram, scratch: Buffer | None) -> None:
        self._program = program
        self._bound: dict[str, Buffer] = {}
        self._own: Buffer | None = None
        if scratch is None:
            scratch = program.device.allocate(program.scratch_bytes, label="scratch")
            self._own = scratch
        self._scratch = scratch

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Return the outputs' shapes, which never change."""
        return {spec.name: spec.shape for spec in self._program.outputs}

    def bind(self, name: str, buffer: Buffer) -> None:
        """Use `buffer` for a tensor."""
        self._bound[name] = buffer

    def enqueue(self, stream: Stream) -> None:
        """Queue the copies."""
        self._program.count()
        for source, target in zip(self._program.inputs, self._program.outputs, strict=True):
            size_bytes = target.size_bytes
            stream.copy(self._scratch, self._bound[source.name], size_bytes)
            stream.copy(self._bound[target.name], self._scratch, size_bytes)

    def fetch(self, name: str) -> Array:
        """Refuse: every output has a buffer."""
        raise RunError(f"output '{name}' lies in its buffer")

    def close(self) -> None:
        """Free the working memory if it is its own."""
        if self._own is not None:
            self._own.close()
            self._own = None


class ScriptedStopwatch(Generic[M]):
    """Stands in for what measures two engines: their times are planted, and nothing is timed.

    Args:
        ratio: the second engine's time for each unit of the first's.
        judge: what gives the verdict on a ratio, e.g. the gate's statistics on planted rounds.

    Attributes:
        measured: the folders of engines that were measured, first and second of each time.
    """

    def __init__(self, ratio: float, judge: Callable[[float], M]) -> None:
        self._ratio = ratio
        self._judge = judge
        self.measured: list[tuple[Path, Path]] = []

    def __call__(
        self, bundle: Bundle, target: str, first: Path, second: Path, progress: Progress
    ) -> M:
        """Give the verdict on the planted ratio, of engines that must be there."""
        for folder in (first, second):
            if not (folder / target / "record.json").is_file():
                raise RunError(f"there is no finished engine in '{folder / target}'")
        self.measured.append((first, second))
        return self._judge(self._ratio)
