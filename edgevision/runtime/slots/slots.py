"""The slots of a session or pipeline: made together, lent to one call each, freed together.

Whoever waits for a slot stands in line: it goes to who came first, not to who happens to be awake.

Ctrl-C may come anywhere in `take` and `give`, and no slot may be lost for it. CPython runs signal
handlers, and lets another thread run, when a function begins, after a call and where it jumps. So a
slot changes hands in straight lines without any of these, which needs no lock, the dearest part of
a short net's frame; and what an interrupted call holds is known by its `Hold`.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from threading import get_ident
from types import FrameType

from edgevision.bundle.tensors import Profiles
from edgevision.errors import CudaError, RunError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.slots.state import CarriedState

NO_STATE: Mapping[str, str] = {}
_POLL_S = 0.05
_alive: weakref.WeakSet[Slots] = weakref.WeakSet()


class Hold:
    """One call's claim to a slot: made before it takes one, given back whatever happens.

    Attributes:
        slot: what it holds; None before and after.
        thread: whose call it is; 0 once the slot belongs to a pipeline's schedule.
        is_lent: the user's own code runs, in a `with ... input()` block.
    """

    slot: Slot | None = None
    thread = 0
    is_lent = False
    gate: threading.Lock | None = None


class Slots:
    """A number of slots of one program.

    Attributes:
        all: every slot; empty once closed.
        is_open: whether slots are given out.
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
        state: Mapping[str, str] = NO_STATE,
    ) -> None:
        """Make `count` slots.

        Args:
            program: what runs.
            profiles: bounds of its dynamic inputs.
            options: how it runs.
            count: how many.
            share_scratch: they share working memory, as no two of them ever run at once.
            warm_up: run each once.
            state: what they hand from run to run, see `CarriedState`; no two of them then run at
                once, either.
        """
        self.all: list[Slot] = []
        self.is_open = True
        self._free: list[Slot] = []
        self._waiting: deque[Hold] = deque()
        self._closing = threading.RLock()  # a signal's handler may close in the middle of that
        self._back = threading.Lock()
        self._device = program.device
        self._scratch: Buffer | None = None
        self._carried: CarriedState | None = None
        _alive.add(self)
        try:
            if state:
                with self._device.active():
                    self._carried = CarriedState(program, state)
            if share_scratch and program.scratch_bytes:
                with self._device.active():
                    self._scratch = self._device.allocate(program.scratch_bytes, label="scratch")
            for _ in range(count):
                slot = Slot(
                    program, profiles, options, scratch=self._scratch, carried=self._carried
                )
                self.all.append(slot)
                self._free.append(slot)
                if warm_up:
                    slot.warm_up()
            self.begin_anew()
        except BaseException:
            self.close()
            raise

    def begin_anew(self) -> None:
        """Let the next run begin with no state; nobody else runs one."""
        if self._carried is not None:
            self._carried.starts_anew = True

    def take(self, hold: Hold) -> Slot | None:
        """Give `hold` a slot if one is free and nobody waits; None if not, or if closed."""
        hold.thread = get_ident()
        if self._free and not self._waiting and self.is_open:
            slot = self._free[0]
            del self._free[0]
            slot.hold = hold
            hold.slot = slot
            return slot
        return hold.slot

    def wait(self, hold: Hold, timeout_s: float = _POLL_S) -> Slot | None:
        """Stand in line until `hold` gets a slot; None after `timeout_s`, or if closed.

        The place in the line is kept for the next call, and left by `give`.

        Raises:
            RunError: this thread holds every slot itself.
        """
        if self._are_all_mine():
            raise RunError(
                "this thread waits for a slot and holds every one itself: the model was called "
                "inside `with ... input()`, or in a signal's handler while it ran. Leave the "
                "block first, or give more slots."
            )
        gate = hold.gate
        if gate is None:
            gate = threading.Lock()
            gate.acquire()
            hold.gate = gate
            self._waiting += (hold,)
        if self.is_open and hold.slot is None:
            self._serve_first()
            if not gate.acquire(timeout=timeout_s):
                self._take_back_what_is_lost()
        return hold.slot

    def give(self, hold: Hold) -> None:
        """Pass the slot on to who waits longest, or leave the line; safe to call twice."""
        slot = hold.slot
        if slot is not None:
            hold.slot = slot.hold = None
            self._free += (slot,)
        elif hold.gate is not None:
            with suppress(ValueError):
                self._waiting.remove(hold)
            if hold.slot is not None:  # it had its turn meanwhile
                self.give(hold)
        if self._waiting:
            self._serve_first()
        if not self.is_open:
            self._wake_closer()

    def _serve_first(self) -> None:
        """Give what is free to who waits longest."""
        while self._free and self._waiting:
            heir, slot = self._waiting[0], self._free[0]
            del self._waiting[0], self._free[0]
            slot.hold = heir
            heir.slot = slot
            if heir.gate is not None:
                heir.gate.release()

    def is_held_here(self) -> bool:
        """Whether this thread holds a slot: in a lent block, or in a call that a signal stopped."""
        if not self._is_mine():
            return False
        self._take_back_what_is_lost()
        return self._is_mine()

    def end(self) -> None:
        """Give out no more slots, and wake those who wait for one."""
        self.is_open = False
        while self._waiting:
            hold = self._waiting[0]
            del self._waiting[0]
            if hold.gate is not None:
                hold.gate.release()

    def close(self) -> None:
        """Wait until nobody uses a slot, then free them; safe to call twice and on any thread.

        Raises:
            CudaError: something could not be freed; the rest is.
        """
        self.end()
        with self._closing:
            while self._holds():
                self._back.acquire(timeout=_POLL_S)
                self._take_back_what_is_lost()
            self._free_all()

    def _free_all(self) -> None:
        errors: list[CudaError] = []
        while self.all:
            slot = self.all[-1]
            try:
                slot.close()
            except CudaError as error:
                errors.append(error)
            if slot in self.all:
                self.all.remove(slot)
        self._free.clear()
        for memory in (self._scratch, self._carried):
            if memory is not None:
                with self._device.active():
                    try:
                        memory.close()
                    except CudaError as error:
                        errors.append(error)
        self._scratch = self._carried = None
        if errors:
            raise errors[0]

    def _wake_closer(self) -> None:
        with suppress(RuntimeError):  # it was woken before
            self._back.release()

    def _is_mine(self) -> bool:
        here = get_ident()
        return any(hold.thread == here for hold in self._holds())

    def _are_all_mine(self) -> bool:
        here = get_ident()
        holds = self._holds()
        if not holds or len(holds) < len(self.all) or any(h.thread != here for h in holds):
            return False
        self._take_back_what_is_lost()
        return len(self._holds()) == len(self.all)

    def _holds(self) -> list[Hold]:
        return [hold for slot in list(self.all) if (hold := slot.hold) is not None]

    def _take_back_what_is_lost(self) -> None:
        """Give back what calls hold that have ended: a second Ctrl-C came before their `give`."""
        holds = [hold for hold in self._holds() if hold.thread and not hold.is_lent]
        if not holds:
            return
        running = sys._current_frames()  # after the holds were read: who holds one still is in it
        for hold in holds:
            if not _is_known_to(running.get(hold.thread), hold):
                self.give(hold)


def _is_known_to(frame: FrameType | None, hold: Hold) -> bool:
    """Whether `hold` is a variable of a call on the stack of `frame`, this module's left out."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("edgevision.runtime.") and name != __name__:
            for value in list(frame.f_locals.values()):
                if value is hold or (type(value) is list and hold in value):
                    return True
        frame = frame.f_back
    return False


def _end_all() -> None:
    """In a forked child, give out no slot: the parent's threads may hold the locks for ever."""
    for slots in list(_alive):
        slots.is_open = False


os.register_at_fork(after_in_child=_end_all)
