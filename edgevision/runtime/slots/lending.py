"""A slot's memory, lent: its inputs to a camera or decoder, its outputs to whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import _GeneratorContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from edgevision.errors import ClosedError, StaleViewError
from edgevision.runtime.device.memory import Array
from edgevision.runtime.slots.slot import Slot

if TYPE_CHECKING:
    from edgevision.runtime.stream.ticket import Ticket

T = TypeVar("T")


class OutputView:
    """Outputs of one frame in the slot's own memory; an error, not garbage, once it is reused."""

    __slots__ = ("_generation", "_slot")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._generation = slot.generation

    def __getitem__(self, name: str) -> Array:
        """Return an output; do not keep the array beyond the view.

        Raises:
            StaleViewError: the slot has taken another frame, or was closed.
            KeyError: there is no such output.
        """
        if self._slot.generation != self._generation:
            raise StaleViewError(
                f"output '{name}' is gone: its memory holds a newer frame or was freed. Read "
                "a view before the next frame, or take copies with `run`."
            )
        return self._slot.output(name)


class InputBuffer:
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


class SessionInput(InputBuffer):
    """InputBuffer by `Session.input`."""

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


class LentOutputs(_GeneratorContextManager[OutputView]):
    """Outputs of one run in the slot's own memory; lent by `Session.run_view` for a block.

    contextlib's own class enters and leaves the block: a method of ours around its generator would
    be one more place where Ctrl-C can come before the slot is given back.
    """

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


class PipelineInput(InputBuffer, Generic[T]):
    """InputBuffer by `Pipeline.input`."""

    def __init__(self, slot: Slot, submit: Callable[[int | None, object, bool], Ticket[T]]) -> None:
        super().__init__(slot)
        self._submit = submit

    def submit(
        self, *, stamp_ns: int | None = None, meta: object = None, is_cut: bool = False
    ) -> Ticket[T]:
        """Submit what was written; see `Pipeline.submit`."""
        self._lent()
        return self._submit(stamp_ns, meta, is_cut)
