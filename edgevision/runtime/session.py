"""A session: one program and its slots, arrays in and arrays out."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress

from edgevision.bundle.flavours import Flavour
from edgevision.bundle.tensors import Profiles, TensorSpec
from edgevision.errors import RunError
from edgevision.runtime.backends.program import Program, make_program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.sharing import SharedProgram
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.lending import LentOutputs, OutputView, SessionInput
from edgevision.runtime.slots.slot import Slot
from edgevision.runtime.slots.slots import NO_STATE, Hold, Slots
from edgevision.tasks.timings import Timings

_DEFAULTS = RunOptions()


class Session:
    """Runs one graph or engine over buffers that it owns; safe to share between threads.

    A thread that finds every slot in use waits for one, and who came first is served first: give
    `RunOptions.slots` for more.

    Attributes:
        shared: who uses the program besides the session; the last of them closes it.
        state: what each run hands on to the next: the input's name, and the output's. These are
            neither fed nor given; without any, the program's are like all others.

    Example:
        >>> with Session.open(graph, flavour=ORT) as session:  # doctest: +SKIP
        ...     outputs = session.run({"frame": frame})
    """

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        options: RunOptions = _DEFAULTS,
        *,
        state: Mapping[str, str] = NO_STATE,
    ) -> None:
        """Take over `program`, which is closed with the session.

        Raises:
            ValueError: several slots would run at once, and there is a state to hand on.
            CudaError: the memory is full.
        """
        if state and options.slots != 1:
            program.close()
            raise ValueError(
                f"slots: got {options.slots}, and this model hands its state from frame to frame: "
                "one runs after the other. Leave slots out, or load it once for each stream"
            )
        self.state = dict(state)
        self._lifetime = Lifetime("the session")
        self.program = program
        self.profiles = dict(profiles)
        self.options = options
        self.inputs: tuple[TensorSpec, ...] = tuple(
            spec for spec in program.inputs if spec.name not in state
        )
        self.outputs: tuple[TensorSpec, ...] = tuple(
            spec for spec in program.outputs if spec.name not in state.values()
        )
        self.check = FeedCheck(self.inputs, self.profiles, program.device)
        self.shared = SharedProgram(program)
        self.shared.join(self)
        self._warming = threading.RLock()
        try:
            self._slots = Slots(program, self.profiles, options, count=options.slots, state=state)
        except BaseException:
            self._lifetime.end()
            self.shared.leave(self)
            raise
        self._give = self._slots.give

    @staticmethod
    def open(
        graph: bytes,
        *,
        flavour: Flavour,
        profiles: Profiles | None = None,
        options: RunOptions = _DEFAULTS,
    ) -> Session:
        """Load `graph` on the host and make it ready to run.

        Raises:
            EngineLoadError: the flavour needs a GPU, or the runtime refuses the graph.
            MissingDependencyError: the runtime is not installed.
        """
        return Session(make_program(graph, flavour, None, options), profiles or {}, options)

    def run(self, feeds: Mapping[str, object]) -> dict[str, Array]:
        """Run once; the returned arrays are the caller's.

        Args:
            feeds: by input name, numpy arrays or what has `__dlpack__` or
                `__cuda_array_interface__`; read before the call returns.

        Raises:
            FrameError: an input is missing, unknown, or has the wrong dtype or shape.
            ClosedError: the session is closed.
            CudaError: the device failed.
        """
        hold = Hold()
        try:
            slot = self._slots.take(hold) or self._wait(hold)
            slot.fill(self.check(feeds))
            slot.run()
            return slot.outputs()
        finally:
            self._give(hold)

    def run_timed(
        self, feeds: Mapping[str, object], *, is_cut: bool = False
    ) -> tuple[dict[str, Array], Timings]:
        """Run once and say how long each part took; see `run`.

        Args:
            feeds: see `run`.
            is_cut: whether the state of the frames before is forgotten first.
        """
        hold = Hold()
        try:
            slot = self._slots.take(hold) or self._wait(hold)
            if is_cut:
                slot.begin_anew()
            return slot.run_timed(feeds, self.check)
        finally:
            self._give(hold)

    def reset(self) -> None:
        """Forget the state: the next run begins as the first did.

        Raises:
            ClosedError: the session is closed.
        """
        hold = Hold()
        try:
            if self._slots.take(hold) or self._wait(hold):
                self._slots.begin_anew()
        finally:
            self._give(hold)

    def run_view(self, feeds: Mapping[str, object]) -> LentOutputs:
        """Run once and lend the outputs without a copy, inside a `with` block; see `run`.

        The block runs the model when it begins, and keeps the slot until it ends: other threads
        take other slots or wait. Reading outside of it is a StaleViewError.

        Example:
            >>> with session.run_view({"frame": frame}) as view:  # doctest: +SKIP
            ...     area = view["mask"].sum()
        """
        return LentOutputs(self._viewed, (feeds,), {})

    def _viewed(self, feeds: Mapping[str, object]) -> Generator[OutputView, None, None]:
        hold = Hold()
        try:
            slot = self._slots.take(hold) or self._wait(hold)
            slot.fill(self.check(feeds))
            slot.run()
            hold.is_lent = True
            try:
                yield OutputView(slot)
            finally:
                slot.generation += 1
        finally:
            self._give(hold)

    @contextmanager
    def input(self) -> Iterator[SessionInput]:
        """Lend a slot's input memory, for a camera or decoder to write the frame in place.

        Raises:
            ClosedError: the session is closed.

        Example:
            >>> with session.input() as buffer:  # doctest: +SKIP
            ...     camera.read_into(buffer["frame"])
            ...     mask = buffer.run()["mask"].copy()
        """
        hold = Hold()
        try:
            buffer = SessionInput(self._slots.take(hold) or self._wait(hold))
            hold.is_lent = True
            try:
                yield buffer
            finally:
                buffer.end()
        finally:
            self._give(hold)

    def check_open(self) -> None:
        """Raise ClosedError once the session is closed."""
        self._lifetime.check()

    def warm_up(self) -> None:
        """Run every slot once and capture its graph, so that no frame pays for it.

        Raises:
            RunError: the engine or the device fails.
        """
        holds = [Hold() for _ in self._slots.all]
        with self._warming:  # two who take them all would wait for each other
            try:
                for hold in holds:
                    slot = self._slots.take(hold) or self._wait(hold)
                    slot.warm_up()
                self._slots.begin_anew()
            finally:
                for hold in holds:
                    self._give(hold)

    def explain(self) -> str:
        """Say on what the session runs, and whether as a captured graph or why not."""
        device = self.program.device
        slot = next(iter(self._slots.all), None)
        runs = f"{self.program.version} on {device.name}, driven by {device.binding}"
        if slot is None:
            return f"{runs}; closed"
        how = f"no graph: {slot.no_graph_reason}"
        if not slot.no_graph_reason:
            how = "one graph launch a frame"
        free_bytes, total_bytes = device.memory()
        return (
            f"{runs}; {how}; "
            f"{len(self._slots.all)} slot(s) hold {self.allocated_bytes / 1e6:.1f} MB, the device "
            f"has {free_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB free"
        )

    @property
    def allocated_bytes(self) -> int:
        """Memory that the slots hold, on the host and the device."""
        return sum(slot.allocated_bytes for slot in self._slots.all)

    def close(self) -> None:
        """Wait for running frames, then free everything; safe to call twice and on any thread.

        Every call waits. The program stays open for as long as a pipeline runs it.

        Raises:
            RunError: called inside this thread's own `with session.input()` or
                `with session.run_view()`, which never ends then.
        """
        if self._lifetime.is_forked:
            return
        if self._slots.is_held_here():
            raise RunError(
                "close() was called inside `with session.input()` or `with session.run_view()` on "
                "the same thread, which holds what close() waits for (or in a signal's handler, "
                "while the thread runs the model). Leave the block first."
            )
        self._lifetime.end()
        self._close()

    def _wait(self, hold: Hold) -> Slot:
        """Return a slot once it is this call's turn."""
        while True:
            self._lifetime.check()
            slot = self._slots.wait(hold)
            if slot is not None:
                return slot

    def _close(self) -> None:
        try:
            self._slots.close()
        except Exception:
            self.shared.leave(self)
            raise
        self.shared.leave(self)  # not if Ctrl-C came before: something may still run

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        lifetime = getattr(self, "_lifetime", None)
        if lifetime is not None and lifetime.is_forgotten:
            lifetime.end()
            with suppress(Exception):  # a destructor has nobody to tell
                self._close()
            lifetime.warn()
