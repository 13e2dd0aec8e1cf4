"""The backend seam: a loaded engine, and its executions over buffers that the runtime owns.

Each flavour's module beside this one has one function, `open_program(data, device, options)`;
`testing.ScriptedProgram` needs none.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

from edgevision.bundle.flavours import Flavour
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import EngineLoadError
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions

Shape = tuple[int, ...]


class Execution(Protocol):
    """One way of running a program at a time: its bindings and working memory.

    Call order: `reshape`, `bind` for every tensor, then `enqueue` as often as wanted. Belongs to
    one slot; never used by two threads at once.
    """

    def reshape(self, shapes: Mapping[str, Shape]) -> Mapping[str, Shape | None]:
        """Set the inputs' shapes; bindings are void afterwards.

        Returns:
            The shape of each output; None where it is known only after a run.
        """

    def bind(self, name: str, buffer: Buffer) -> None:
        """Use `buffer` for a tensor; it must outlive the execution."""

    def enqueue(self, stream: Stream) -> None:
        """Queue one run on `stream`.

        Raises:
            RunError: the engine refused or failed.
        """

    def fetch(self, name: str) -> Array:
        """Return an output whose shape `reshape` did not know; the array is the caller's."""

    def close(self) -> None:
        """Free the working memory; the stream must be idle."""


class Program(Protocol):
    """A loaded engine: immutable, shared by threads and executions.

    Attributes:
        device: where it runs.
        inputs: what goes in, in order.
        outputs: what comes out, in order.
        version: the runtime's version, e.g. "TensorRT 10.3.0".
        no_graph_reason: why its executions cannot be captured into a graph; empty if they can.
        scratch_bytes: working memory of one execution that executions which never overlap may
            share; 0 if it has none to share.
    """

    device: Device
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str
    no_graph_reason: str
    scratch_bytes: int

    def execution(self, scratch: Buffer | None) -> Execution:
        """Return a new execution; `scratch` is working memory that it shares with others."""

    def close(self) -> None:
        """Free the engine; its executions must be closed before."""


def make_program(
    data: bytes, flavour: Flavour, device: Device | None, options: RunOptions
) -> Program:
    """Load an engine of trusted bytes on `device`, None for the host.

    Raises:
        EngineLoadError: it does not load, or needs a GPU and is given none.
        MissingDependencyError: its runtime is not installed.
    """
    if device is None and flavour.on_gpu:
        raise EngineLoadError(
            f"'{flavour.name}' engines run on a GPU: open the bundle with edgevision.load"
        )
    # Late, so that a machine imports no runtime but the one that it uses.
    opened: Program = importlib.import_module(flavour.backend).open_program(data, device, options)
    return opened
