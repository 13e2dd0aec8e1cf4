"""A slot's memory, lent: its inputs to a camera or decoder, its outputs to whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter_ns
from types import TracebackType
from typing import Generic, TypeVar

from edgevision.errors import ClosedError, StaleViewError
from edgevision.runtime.device.memory import Array
from edgevision.runtime.slots.slot import OutputView, Slot
from edgevision.runtime.stream.ticket import Ticket

T = TypeVar("T")


class Lent:
    """Input arrays of a slot, valid inside the `with` block that lent them."""

    def __init__(self, slot: Slot) -> None:
        self._slot: Slot | None = slot
        self._arrays = slot.lend()

    def __getitem__(self, name: str) -> Array:
        """Return an input's memory, to be written in place.

        Raises:
            ClosedError: it was submitted, or the `with` block has ended.
            KeyError: there is no such input.
        """
        self._lent()
        return self._arrays[name]

    def end(self) -> Slot | None:
        """Take the memory back; None if the slot was passed on."""
        slot, self._slot, self._arrays = self._slot, None, {}
        return slot

    def _lent(self) -> Slot:
        if self._slot is None:
            raise ClosedError(
                "the input buffer was used after its `with ... input()` block, or after it was "
                "submitted; its memory may hold another frame. Take a new one for each frame."
            )
        return self._slot


class SessionInput(Lent):
    """Lent by `Session.input`."""

    def run(self) -> OutputView:
        """Run on what was written; the view is valid until the next run or the block's end.

        Raises:
            ClosedError: the `with` block has ended.
            RunError: the engine or the device failed.
        """
        slot = self._lent()
        slot.generation += 1
        slot.run()
        return OutputView(slot)

    def end(self) -> Slot | None:
        """Take the memory back, and void the views."""
        slot = super().end()
        if slot is not None:
            slot.generation += 1
        return slot


class LentOutputs:
    """Outputs of one run in the slot's own memory; lent by `Session.run_view` for a block."""

    def __init__(self, run: AbstractContextManager[OutputView]) -> None:
        self._run = run

    def __enter__(self) -> OutputView:
        """Run, and return the outputs."""
        return self._run.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the slot back; its memory is the next frame's."""
        self._run.__exit__(kind, error, trace)

    def __getitem__(self, name: str) -> Array:
        """Refuse: outside its block the memory is not held.

        Raises:
            StaleViewError: always.
        """
        raise StaleViewError(
            f"output '{name}' is lent inside a block only, or another thread's frame could take "
            "its memory: `with session.run_view(feeds) as view: view[...]`. Or take copies with "
            "`run`."
        )


class PipelineInput(Lent, Generic[T]):
    """Lent by `Pipeline.input`."""

    def __init__(self, slot: Slot, enter: Callable[[Slot, int, int | None], Ticket[T]]) -> None:
        super().__init__(slot)
        self._enter = enter
        self._start_ns = perf_counter_ns()

    def submit(self, *, stamp_ns: int | None = None) -> Ticket[T]:
        """Submit what was written; see `Pipeline.submit`."""
        self._lent()
        slot = self.end()
        assert slot is not None
        return self._enter(slot, self._start_ns, stamp_ns)
