"""A session: one program and its slots, arrays in and arrays out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from time import perf_counter_ns
from types import TracebackType

from edgevision.bundle.flavours import Flavour
from edgevision.bundle.tensors import Profiles, TensorSpec
from edgevision.errors import RunError
from edgevision.runtime.backends.program import Program, program_of
from edgevision.runtime.device.memory import Array
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.lending import LentOutputs, SessionInput
from edgevision.runtime.slots.slot import OutputView, Slot
from edgevision.runtime.slots.slots import Slots
from edgevision.tasks.timings import Timings, timings

_DEFAULTS = RunOptions()


class Session:
    """Runs one graph or engine over buffers that it owns; safe to share between threads.

    A thread that finds every slot in use waits for one: give `RunOptions.slots` for more.

    Example:
        >>> with Session.open(graph, flavour=ORT) as session:  # doctest: +SKIP
        ...     outputs = session.run({"frame": frame})
    """

    def __init__(
        self, program: Program, profiles: Profiles, options: RunOptions = _DEFAULTS
    ) -> None:
        """Take over `program`, which is closed with the session."""
        self._lifetime = Lifetime("the session")
        self.program = program
        self.profiles = dict(profiles)
        self.options = options
        self.inputs: tuple[TensorSpec, ...] = program.inputs
        self.outputs: tuple[TensorSpec, ...] = program.outputs
        self.check = FeedCheck(program.inputs, self.profiles, program.device)
        self._active = program.device.active()
        self._lenders: set[int] = set()
        try:
            self._slots = Slots(program, self.profiles, options, count=options.slots)
        except BaseException:
            self._lifetime.end()
            program.close()
            raise
        self._free = self._slots.free

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
        return Session(program_of(graph, flavour, None, options), profiles or {}, options)

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
        slot = self._take()
        try:
            slot.fill(self.check(feeds))
            slot.run()
            return slot.outputs()
        finally:
            self._free.put(slot)

    def run_timed(self, feeds: Mapping[str, object]) -> tuple[dict[str, Array], Timings]:
        """Run once and say how long each part took; see `run`."""
        slot = self._take()
        try:
            checked = self.check(feeds)
            start_ns = perf_counter_ns()
            slot.fill(checked)
            filled_ns = perf_counter_ns()
            with self._active:
                slot.launch()
                slot.wait()
                computed_ns = perf_counter_ns()
                outputs = slot.outputs()
                copied_ns = perf_counter_ns()
                return outputs, timings(
                    slot, filled_ns - start_ns, computed_ns - filled_ns, copied_ns - computed_ns
                )
        finally:
            self._free.put(slot)

    def run_view(self, feeds: Mapping[str, object]) -> LentOutputs:
        """Run once and lend the outputs without a copy, inside a `with` block; see `run`.

        The block runs the model when it begins, and keeps the slot until it ends: other threads
        take other slots or wait. Reading outside of it is a StaleViewError.

        Example:
            >>> with session.run_view({"frame": frame}) as view:  # doctest: +SKIP
            ...     area = view["mask"].sum()
        """
        return LentOutputs(self._viewed(feeds))

    @contextmanager
    def _viewed(self, feeds: Mapping[str, object]) -> Iterator[OutputView]:
        slot = self._take()
        try:
            slot.fill(self.check(feeds))
            slot.run()
            self._lenders.add(threading.get_ident())
            try:
                yield OutputView(slot)
            finally:
                self._lenders.discard(threading.get_ident())
                slot.generation += 1
        finally:
            self._free.put(slot)

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
        slot = self._take()
        try:
            buffer = SessionInput(slot)
            self._lenders.add(threading.get_ident())
            try:
                yield buffer
            finally:
                self._lenders.discard(threading.get_ident())
                buffer.end()
        finally:
            self._free.put(slot)

    def check_open(self) -> None:
        """Raise ClosedError once the session is closed."""
        self._lifetime.check()

    def warm_up(self) -> None:
        """Run every slot once and capture its graph, so that no frame pays for it.

        Raises:
            RunError: the engine or the device fails.
        """
        slots = [self._take() for _ in self._slots.all]
        try:
            for slot in slots:
                slot.warm_up()
        finally:
            for slot in slots:
                self._free.put(slot)

    def explain(self) -> str:
        """Say on what the session runs, and whether as a captured graph or why not."""
        device = self.program.device
        slot = next(iter(self._slots.all), None)
        how = "closed" if slot is None else f"no graph: {slot.no_graph}"
        if slot is not None and not slot.no_graph:
            how = "one graph launch a frame"
        free_bytes, total_bytes = device.memory() if slot is not None else (0, 0)
        return (
            f"{self.program.version} on {device.name}, driven by {device.binding}; {how}; "
            f"{len(self._slots.all)} slot(s) hold {self.allocated_bytes / 1e6:.1f} MB, the device "
            f"has {free_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB free"
        )

    @property
    def allocated_bytes(self) -> int:
        """Memory that the slots hold, on the host and the device."""
        return sum(slot.allocated_bytes for slot in self._slots.all)

    def close(self) -> None:
        """Wait for running frames, then free everything; safe to call twice and on any thread.

        Raises:
            RunError: called inside this thread's own `with session.input()` or
                `with session.run_view()`, which never ends then.
        """
        if threading.get_ident() in self._lenders:
            raise RunError(
                "close() was called inside `with session.input()` or `with session.run_view()` on "
                "the same thread, which holds what close() waits for. Leave the block first."
            )
        if self._lifetime.end():
            self._close()

    def _take(self) -> Slot:
        self._lifetime.check()
        slot = self._free.get()
        if slot is None:
            self._free.put(None)
            self._lifetime.check()
            raise AssertionError("a session that wakes its waiters is closed")
        return slot

    def _close(self) -> None:
        try:
            self._slots.close()
        finally:
            self.program.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        lifetime = getattr(self, "_lifetime", None)
        if lifetime is not None and lifetime.warn_if_open():
            lifetime.end()
            with suppress(Exception):  # a destructor has nobody to tell
                self._close()
