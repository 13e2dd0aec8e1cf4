"""The slots of a session or pipeline: made together, lent to one thread each, freed together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from queue import Empty, SimpleQueue

from edgevision.bundle.tensors import Profiles
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.slot import Slot

_POLL_S = 0.05


class Slots:
    """A number of slots of one program.

    Attributes:
        all: every slot; empty once closed.
        free: those that nobody uses. Whoever takes one puts it back: the queue is the lock. A None
            in it says that no more will come, and is put back for the next who waits.
    """

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        options: RunOptions,
        *,
        count: int,
        share_scratch: bool = False,
        warm_up: bool = False,
    ) -> None:
        """Make `count` slots; `share_scratch` where no two of them ever run at once."""
        self.all: list[Slot] = []
        self.free: SimpleQueue[Slot | None] = SimpleQueue()
        self._device = program.device
        self._scratch: Buffer | None = None
        try:
            if share_scratch and program.scratch_bytes:
                with self._device.active():
                    self._scratch = self._device.allocate(program.scratch_bytes, label="scratch")
            for _ in range(count):
                slot = Slot(program, profiles, options, scratch=self._scratch)
                self.all.append(slot)
                self.free.put(slot)
                if warm_up:
                    slot.warm_up()
        except BaseException:
            self.close()
            raise

    def close(self, *, is_used: Callable[[], bool] | None = None) -> None:
        """Free the slots, each once nobody uses it; safe to call twice.

        Args:
            is_used: whether any caller may hold a slot that is not in `free`. Ctrl-C can come
                between a slot and the variable it goes to: then nobody will put it back, and it
                is freed once nobody uses any. Without this, slots are waited for, however long.

        Raises:
            CudaError: something could not be freed; the rest is.
        """
        slots, self.all = self.all, []
        left = len(slots)
        while left:
            try:
                left -= self.free.get(timeout=_POLL_S) is not None
            except Empty:
                # Asked after a wait in vain: who gave up its mark has put its slot back before.
                if is_used is not None and not is_used() and self.free.empty():
                    break
        self.free.put(None)
        scratch, self._scratch = self._scratch, None
        with ExitStack() as stack:
            if scratch is not None:
                stack.enter_context(self._device.active())
                stack.callback(scratch.close)
            for slot in slots:
                stack.callback(slot.close)
