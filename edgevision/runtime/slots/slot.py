"""A slot: everything that one frame in flight needs, made once and used again.

It holds an execution, the buffers bound to it, a stream, its events and, where the device can, the
captured graph of copy in, run and copy out. One thread at a time uses a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from edgevision.bundle.tensors import Profiles
from edgevision.errors import CudaError, RunError
from edgevision.runtime.backends.program import Program, Shape
from edgevision.runtime.device.device import Event, Graph, Stream
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import Feed
from edgevision.runtime.slots.foreign import queue_copy
from edgevision.runtime.slots.recycle import LEAST_BYTES, Recycler
from edgevision.tasks.interop import DeviceArray, SeparateArrays
from edgevision.tasks.timings import Timings, timings

if TYPE_CHECKING:
    from edgevision.runtime.slots.slots import Hold
    from edgevision.runtime.slots.state import CarriedState

_ALIGNMENT_BYTES = 256
_NO_STATE: Mapping[str, Buffer] = {}
_as_timings = tuple.__new__  # what Timings(...) calls, in half of its time


class Slot:
    """Buffers, execution and stream of one frame at a time.

    Call order for each frame: `fill`, `launch`, `wait`, then `outputs` (copies) or `view`. Every
    step waits for what a forgotten `wait` left in flight, so that no exception can tear a frame.
    The device must be active on the thread that calls `launch`, `wait` or `device_ms`.

    Attributes:
        no_graph_reason: why frames are not launched as a graph; empty if they are.
        generation: how many frames it has taken; a view of an older one is stale.
        hold: whose it is; None while it is free. `Slots` sets it.
    """

    def __init__(
        self,
        program: Program,
        profiles: Profiles,
        options: RunOptions,
        *,
        scratch: Buffer | None = None,
        stream: Stream | None = None,
        state: Mapping[str, Buffer] = _NO_STATE,
        told: Collection[str] = (),
        carried: CarriedState | None = None,
    ) -> None:
        """Allocate for the largest shapes; what is given stays the caller's.

        Args:
            program: what runs.
            profiles: bounds of its dynamic inputs.
            options: how it runs.
            scratch: working memory that it shares with other slots.
            stream: whose work its own is to follow; None for one of its own.
            state: memory of tensors that stay where engines use it, by name; no feed fills them.
            told: outputs in `state` that are copied to the host all the same.
            carried: state that each run hands on to the next, of this slot or another.
        """
        self.program = program
        self.generation = 0
        self.hold: Hold | None = None
        self.is_open = True
        self._device = program.device
        self._active = program.device.active()
        self._options = options
        capabilities = self._device.capabilities
        self._asynchronous = capabilities.async_copies
        self._in_place = capabilities.integrated and capabilities.mapped
        self._in_flight = False
        self._recorded = False
        self._closers: list[Buffer | Event] = []
        self._buffers: dict[str, tuple[Buffer, Buffer]] = {}
        self._specs = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
        self._largest = {
            spec.name: profiles[spec.name].maximum if spec.name in profiles else spec.shape
            for spec in program.inputs
        }
        self._is_dynamic = any(spec.is_dynamic for spec in program.inputs)
        self._is_plain = not self._asynchronous and not self._is_dynamic and carried is None
        self.no_graph_reason = self._find_no_graph_reason() or "not warmed up"
        self._state, self._told = state if carried is None else carried.buffers, told
        self._carried = carried
        self._graph: Graph | None = None
        self._foreign: Mapping[str, DeviceArray] = {}
        self._inputs: dict[str, Array] = {}
        self._fills: list[tuple[str, Array, np.dtype[np.generic], Shape]] = []
        self._outputs: dict[str, Array | None] = {}
        self._copies: list[tuple[str, Callable[[], Array]]] = []
        self._shapes: dict[str, Shape] = {}
        with self._device.active():
            self._stream = stream or self._device.stream(priority=options.priority)
            self._owns_stream = stream is None
            try:
                self._execution = program.execution(scratch)
                self._enqueue = self._execution.enqueue
            except BaseException:
                if self._owns_stream:
                    self._stream.close()
                raise
            try:
                timing = options.timing and self._asynchronous
                self._done = self._event(timing=timing)
                self._marks = [self._event(timing=True) for _ in range(3)] if timing else []
                self._measured = [*self._marks, self._done]
                self._ready = self._event(timing=False)
                if all(-1 not in shape for shape in self._largest.values()):
                    self._reshape(self._largest)
            except BaseException:
                self.close()
                raise

    def fill(self, feeds: Mapping[str, Feed]) -> None:
        """Copy the feeds into the slot's memory; they must be checked.

        Host memory is copied here and now. Memory on the device is copied on the slot's stream,
        after what its owner's stream has queued and before what it will queue; without such a
        stream the copy is waited for. Either way it may be written again after the call.
        """
        if self._in_flight:
            self._recover()
        self.generation += 1
        if self._is_dynamic:
            shapes = {name: feed.shape for name, feed in feeds.items()}
            if shapes != self._shapes:
                with self._device.active():
                    self._reshape(shapes)
        if not self._asynchronous:
            for name, array in self._inputs.items():
                feed = feeds[name]
                if type(feed) is SeparateArrays:
                    feed.copy_to(array)
                else:
                    array[...] = feed  # type: ignore[assignment]  # the check lets none else by
            return
        foreign: dict[str, DeviceArray] = {}
        self._foreign = {}
        for name, feed in feeds.items():
            if isinstance(feed, DeviceArray):
                foreign[name] = feed
            elif type(feed) is SeparateArrays:
                feed.copy_to(self._inputs[name])
            else:
                self._inputs[name][...] = feed  # type: ignore[assignment]  # see above
        if foreign:
            with self._active:
                self._queue_foreign(foreign)

    def lend(self) -> dict[str, Array]:
        """Return the input arrays to be filled in place; valid until the slot's next frame."""
        if self._in_flight:
            self._recover()
        self.generation += 1
        self._foreign = {}
        return dict(self._inputs)

    def launch(self) -> None:
        """Queue the frame; on a device without queues, run it.

        Raises:
            RunError: the engine or the device refused.
        """
        if self._carried is not None:
            self._begin_state(self._carried)
        if not self._asynchronous:
            self._enqueue(self._stream)
            if self._carried is not None:
                self._carried.hand_on(self._stream)
            return
        # Until the event is recorded it stands for the last frame, not for this one.
        self._in_flight, self._recorded = True, False
        if self._graph is not None and (self._in_place or not self._foreign):
            self._graph.launch(self._stream)
        else:
            self._queue()
        self._stream.record(self._done)
        self._recorded = True

    def run_timed(
        self, feeds: Mapping[str, Any], check: Callable[[Mapping[str, Any]], Mapping[str, Feed]]
    ) -> tuple[dict[str, Array], Timings]:
        """Check, fill, run and return the outputs, the caller's, with how long each part took.

        Raises:
            FrameError: an input is missing, unknown, or has the wrong dtype or shape.
            RunError: the engine or the device failed.
        """
        if not self._is_plain or len(feeds) != len(self._fills):
            return self._run_checked(check(feeds))
        # The same again in straight lines, for they are all that a short net's frame waits for.
        start_s = perf_counter()
        for name, array, dtype, shape in self._fills:
            feed = feeds.get(name)
            if type(feed) is not ndarray or feed.dtype is not dtype or feed.shape != shape:
                return self._run_checked(check(feeds))
            array[...] = feed  # on small arrays faster than np.copyto
        self.generation += 1
        filled_s = perf_counter()
        self._enqueue(self._stream)
        computed_s = perf_counter()
        outputs = {}
        for name, copy in self._copies:
            outputs[name] = copy()
        copied_s = perf_counter()
        return outputs, _as_timings(
            Timings,
            (
                (filled_s - start_s) * 1e3,
                (computed_s - filled_s) * 1e3,
                (copied_s - computed_s) * 1e3,
                0.0,
            ),
        )

    def _run_checked(self, feeds: Mapping[str, Feed]) -> tuple[dict[str, Array], Timings]:
        start_ns = perf_counter_ns()
        self.fill(feeds)
        filled_ns = perf_counter_ns()
        with self._active:
            self.launch()
            self.wait()
            computed_ns = perf_counter_ns()
            outputs = self.outputs()
            copy_ns = perf_counter_ns() - computed_ns
            return outputs, timings(self, filled_ns - start_ns, computed_ns - filled_ns, copy_ns)

    def run(self) -> None:
        """Launch and wait, on a thread where the device need not be active.

        Raises:
            RunError: the engine or the device failed.
        """
        if self._is_plain:
            self._enqueue(self._stream)
            return
        with self._active:
            self.launch()
            self.wait()

    def wait(self) -> None:
        """Wait until the frame's answer is in host memory.

        Raises:
            CudaError: the device failed.
        """
        if self._in_flight:
            # Also where a launch failed half-way, all that was queued must be done.
            if self._recorded:
                self._done.synchronize()
            else:
                self._stream.synchronize()
            self._in_flight = False

    def outputs(self) -> dict[str, Array]:
        """Return copies of the frame's outputs; the caller's own."""
        outputs = {}
        for name, copy in self._copies:  # no comprehension, which is a call before Python 3.12
            outputs[name] = copy()
        return outputs

    def output(self, name: str) -> Array:
        """Return one output in the slot's memory."""
        array = self._outputs[name]
        return self._execution.fetch(name) if array is None else array

    def device_ms(self) -> list[float] | None:
        """Return the last frame's copy in, run and copy out on the device; call it after `wait`.

        None where the device has no queue to measure, or measuring was switched off.
        """
        if not self._marks:
            return None
        return self._device.intervals_ms(self._measured)

    def warm_up(self) -> None:
        """Run once on zeros, so that the first frame is as fast as the rest; then capture."""
        if self._is_dynamic and not self._shapes:
            self.no_graph_reason = "an input has no largest shape"
            return
        with self._device.active():
            self.launch()
            self.wait()
            self.no_graph_reason = self._capture()
            if not self.no_graph_reason:
                self.launch()
                self.wait()

    @property
    def allocated_bytes(self) -> int:
        """Memory that the slot holds, on the host and the device."""
        unique = {id(b): b.size_bytes for pair in self._buffers.values() for b in pair}
        return sum(unique.values())

    def close(self) -> None:
        """Wait for the device, then free everything; safe to call twice.

        Raises:
            CudaError: something could not be freed, and the device was well until then.
        """
        if not self.is_open:
            return
        self.generation += 1
        errors: list[CudaError] = []
        with self._device.active():
            self._try(self.wait, errors)
            self._in_flight = False
            # What failed was reported where it was waited for; a dead device frees nothing.
            is_dead = bool(errors)
            if self._graph is not None:
                self._try(self._graph.close, errors)
                self._graph = None
            self._try(self._execution.close, errors)
            self._inputs, self._outputs, self._foreign = {}, {}, {}
            self._fills, self._copies = [], []
            while self._closers:
                self._try(self._closers[-1].close, errors)
                del self._closers[-1]
            if self._owns_stream:
                self._try(self._stream.close, errors)
        self.is_open = False  # not before: Ctrl-C may come anywhere, and close() be called again
        if errors and not is_dead:
            raise errors[0]

    @staticmethod
    def _try(close: Callable[[], None], errors: list[CudaError]) -> None:
        try:
            close()
        except CudaError as error:
            errors.append(error)

    def _recover(self) -> None:
        """Wait for a frame that nobody waited for."""
        with self._device.active():
            self.wait()

    def _event(self, *, timing: bool) -> Event:
        event = self._device.event(timing=timing, spin=self._options.spin)
        self._closers.append(event)
        return event

    def _reshape(self, shapes: Mapping[str, Shape]) -> None:
        """Bind the buffers for `shapes`, allocating those that are missing or too small."""
        if self._graph is not None:
            self._graph.close()
            self._graph, self.no_graph_reason = None, "the shapes changed"
        self._shapes = dict(shapes)
        found = self._execution.reshape(shapes)
        self._inputs, self._outputs, self._copies = {}, {}, []
        for name in self._state.keys() & self._specs.keys():
            self._execution.bind(name, self._state[name])
        for spec in self.program.inputs:
            if spec.name not in self._state:
                self._inputs[spec.name] = self._bind(spec.name, shapes[spec.name])
        self._fills = [(name, a, a.dtype, a.shape) for name, a in self._inputs.items()]
        for spec in self.program.outputs:
            if spec.name in self._state and spec.name not in self._told:
                continue
            shape = found[spec.name]
            array = None if shape is None else self._bind(spec.name, shape)
            self._outputs[spec.name] = array
            self._copies.append((spec.name, self._copier(spec.name, array)))

    def _copier(self, name: str, array: Array | None) -> Callable[[], Array]:
        """Return what gives the caller an output of its own."""
        if array is None:
            return partial(self._execution.fetch, name)
        return array.copy if array.nbytes < LEAST_BYTES else Recycler(array).copy

    def _bind(self, name: str, shape: Shape) -> Array:
        spec = self._specs[name].with_shape(shape)
        pair = self._buffers.get(name)
        if pair is None or pair[0].size_bytes < spec.size_bytes:
            pair = self._buffers[name] = self._allocate(name, spec.size_bytes)
        host, bound = pair
        self._execution.bind(name, bound)
        return host.view(spec)

    def _allocate(self, name: str, size_bytes: int) -> tuple[Buffer, Buffer]:
        """Return a tensor's host buffer, and the buffer that the engine uses."""
        bound = self._state.get(name)
        if bound is not None and self._in_place:
            return bound, bound
        padded = -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        host = self._device.allocate_host(padded, label=f"{name} (host)")
        self._closers.append(host)
        if self._in_place:
            return host, host
        if bound is None:
            bound = self._device.allocate(padded, label=f"{name} (device)")
            self._closers.append(bound)
        return host, bound

    def _queue(self) -> None:
        """Queue copy in, run and copy out, marks between them; a graph is captured of it."""
        stream, marks = self._stream, self._marks
        if marks:
            stream.record(marks[0])
        for name, given in self._inputs.items():
            host, bound = self._buffers[name]
            if bound is not host and name not in self._foreign:
                stream.copy(bound, host, given.nbytes)
        if marks:
            stream.record(marks[1])
        self._enqueue(stream)
        if marks:
            stream.record(marks[2])
        if self._carried is not None:
            self._carried.hand_on(stream)
        for name, array in self._outputs.items():
            host, bound = self._buffers[name]
            if bound is not host and array is not None:
                stream.copy(host, bound, array.nbytes)

    def begin_anew(self) -> None:
        """Let the next run begin a stream of state, whichever slot it is in."""
        if self._carried is not None:
            self._carried.starts_anew = True

    def _begin_state(self, carried: CarriedState) -> None:
        """Queue setting the state to zeros, where this run is the first of its stream."""
        if carried.starts_anew:
            self._in_flight, self._recorded = self._asynchronous, False
            carried.begin(self._stream)

    def _queue_foreign(self, feeds: Mapping[str, DeviceArray]) -> None:
        """Copy from the caller's memory on the device, ordered with what the caller does to it."""
        # No event stands for these copies until the frame is launched: see `wait`.
        self._in_flight, self._recorded = True, False
        self._foreign = feeds
        for name, feed in feeds.items():
            queue_copy(
                feed,
                self._buffers[name][1],
                name=name,
                device=self._device,
                stream=self._stream,
                ready=self._ready,
            )

    def _find_no_graph_reason(self) -> str:
        """Return why frames are never launched as a graph; empty if they can be."""
        capabilities = self._device.capabilities
        if not self._options.graph:
            return "switched off by RunOptions.graph"
        if not capabilities.graphs:
            return capabilities.reasons.get("graphs", "the device has no graphs")
        if self.program.no_graph_reason:
            return self.program.no_graph_reason
        if self._is_dynamic:
            return "an input has a dynamic shape, and a graph freezes shapes"
        return ""

    def _capture(self) -> str:
        """Capture the frame's work; return why not, empty if it was captured."""
        if reason := self._find_no_graph_reason():
            return reason
        if self._graph is not None:  # of an earlier warm-up
            self._graph.close()
            self._graph = None
        try:
            with self._stream.capture() as capture:
                self._queue()
        except (CudaError, RunError) as error:
            return f"capture failed: {error}"
        self._graph = capture.graph
        return ""
