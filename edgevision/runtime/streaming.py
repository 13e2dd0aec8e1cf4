"""Captions token by token: an encoder and a step engine, with the state kept on the device.

Two executions of the step read what the other wrote, so that nothing but a word and its weights
crosses the bus. For long texts, and for those who want each word as soon as it is known; a whole
caption comes faster from one graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter_ns
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import CudaError, EngineLoadError, RunError, StaleViewError
from edgevision.runtime.backends.program import Execution, Program
from edgevision.runtime.device.device import Event, Graph
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.tasks.camera import Image
from edgevision.tasks.caption import NEXT, CaptionDecoder, CaptionResult, gather_caption
from edgevision.tasks.interop import DeviceArray
from edgevision.tasks.timings import Timings

_TOKEN, _GAINED, _PLACES = "token", "gained", "places"
_DEFAULTS = RunOptions()
_R = TypeVar("_R", Buffer, Event)


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it comes.

    Attributes:
        text: the word, or piece of a word.
        token: its number.
        log_probability: of this word after those before it.
        attention: float32[h, w], how much each place of the frame counted; None if the net does
            not attend.
    """

    text: str
    token: int
    log_probability: float
    attention: npt.NDArray[np.float32] | None


class TokenStream:
    """The likeliest word at every step, over two programs of one device.

    One thread at a time; the programs stay the caller's. Memory is allocated here and freed by
    `close`.
    """

    def __init__(self, encode: Program, step: Program, options: RunOptions = _DEFAULTS) -> None:
        """Allocate and bind everything, and capture graphs where the device can.

        Raises:
            EngineLoadError: the step does not take what the encoder gives, or what it gave.
            CudaError: the memory is full.
        """
        carried = check_stages(encode, step)
        self._device = step.device
        self._options = options
        self._closers: list[Buffer | Event | Graph | Execution] = []
        self._launches: list[Callable[[], None]] = []
        self._turn = 0
        with self._device.active():
            self._stream = self._device.stream(priority=options.priority)
            try:
                self._build(encode, step, carried)
            except BaseException:
                self.close()
                raise

    def _build(self, encode: Program, step: Program, carried: Sequence[str]) -> None:
        self._done = self._kept(self._device.event(spin=self._options.spin))
        (frame,) = encode.inputs
        self._frame, on_device = self._allocate(frame)
        first = {spec.name: self._allocate(spec) for spec in encode.outputs}
        second = {s.name: self._allocate(s) for s in encode.outputs if s.name in carried}
        answers = {s.name: self._allocate(s) for s in step.outputs if not s.name.endswith(NEXT)}
        execution = self._execution(encode, {frame.name: frame.shape})
        execution.bind(frame.name, on_device)
        for name, (_, bound) in first.items():
            execution.bind(name, bound)
        self._views = [self._seen(step, answers, second), self._seen(step, answers, first)]
        works = [self._work(execution, [(on_device, self._frame)], [])]
        shapes = {spec.name: spec.shape for spec in step.inputs}
        for read, written in ((first, second), (second, first)):
            turn = self._execution(step, shapes)
            for spec in step.inputs:
                turn.bind(spec.name, (read if spec.name in carried else first)[spec.name][1])
            out = dict(answers)
            for name in carried:
                turn.bind(name + NEXT, written[name][1])
            for name, (_, bound) in answers.items():
                turn.bind(name, bound)
            out[_TOKEN] = written[_TOKEN]
            works.append(self._work(turn, [], list(out.values())))
        self._frame_view = self._frame.view(frame)
        for work in works:  # the first run of an engine is slow, and none may be captured cold
            work()
        self._stream.synchronize()
        graphless = encode.no_graph or step.no_graph
        can = self._device.capabilities.graphs and self._options.graph and not graphless
        self._launches = [self._captured(work) for work in works] if can else works

    def start(self, frame: Array) -> None:
        """Queue the encoding of `frame`, which was checked; it is copied before this returns."""
        with self._device.active():
            self._stream.synchronize()  # a search that was left may still read the frame's memory
            self._frame_view[...] = frame
            self._turn = 0
            self._launches[0]()

    def step(self) -> dict[str, Array]:
        """Run one step and wait for its word.

        Returns:
            The word's number under "token" and what else the step gives; the caller's own.

        Raises:
            RunError: the engine or the device failed.
        """
        with self._device.active():
            try:
                self._launches[1 + self._turn]()
                self._stream.record(self._done)
                self._done.synchronize()
            except BaseException:
                with suppress(CudaError):  # what failed is being told
                    self._stream.synchronize()
                raise
        views = self._views[self._turn]
        self._turn = 1 - self._turn
        return {name: view.copy() for name, view in views.items()}

    def close(self) -> None:
        """Wait for the device, then free everything; safe to call twice."""
        with self._device.active():
            errors = []
            for close in (
                self._stream.synchronize,
                *(c.close for c in reversed(self._closers)),
                self._stream.close,
            ):
                try:
                    close()
                except CudaError as error:
                    errors.append(error)
            self._closers, self._launches = [], []
        if errors:
            raise errors[0]

    def _execution(self, program: Program, shapes: Mapping[str, tuple[int, ...]]) -> Execution:
        execution = program.execution(None)
        self._closers.append(execution)
        execution.reshape(shapes)
        return execution

    def _work(
        self,
        execution: Execution,
        before: Sequence[tuple[Buffer, Buffer]],
        after: Sequence[tuple[Buffer, Buffer]],
    ) -> Callable[[], None]:
        """Return what queues copies in, a run, and copies out; pairs are target and source."""
        stream = self._stream
        copies_in = [(t, s) for t, s in before if t is not s]
        copies_out = [(t, s) for t, s in after if t is not s]

        def work() -> None:
            for target, source in copies_in:
                stream.copy(target, source, source.size_bytes)
            execution.enqueue(stream)
            for target, source in copies_out:
                stream.copy(target, source, source.size_bytes)

        return work

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what launches `work` as one graph; `work` itself where capturing fails."""
        try:
            with self._stream.capture() as capture:
                work()
        except (CudaError, RunError):
            return work
        graph, stream = capture.graph, self._stream
        self._closers.append(graph)
        return lambda: graph.launch(stream)

    def _seen(
        self,
        step: Program,
        answers: Mapping[str, tuple[Buffer, Buffer]],
        written: Mapping[str, tuple[Buffer, Buffer]],
    ) -> dict[str, Array]:
        """Return host views of what a step tells."""
        specs = {spec.name: spec for spec in (*step.inputs, *step.outputs)}
        views = {name: host.view(specs[name]) for name, (host, _) in answers.items()}
        return views | {_TOKEN: written[_TOKEN][0].view(specs[_TOKEN])}

    def _allocate(self, spec: TensorSpec) -> tuple[Buffer, Buffer]:
        """Return a tensor's host memory and the memory that engines use, which may be the same."""
        capabilities = self._device.capabilities
        host = self._kept(self._device.allocate_host(spec.size_bytes, label=f"{spec.name} (host)"))
        if capabilities.integrated and capabilities.mapped:
            return host, host
        bound = self._device.allocate(spec.size_bytes, label=f"{spec.name} (device)")
        return host, self._kept(bound)

    def _kept(self, resource: _R) -> _R:
        self._closers.append(resource)
        return resource


class StreamingCaptioner:
    """A captioner that tells each word as it comes; made by `edgevision.load_streaming`.

    Safe to share between threads: whole captions take turns, and the words of a frame end with an
    error once another frame was begun.

    Example:
        >>> with edgevision.load_streaming("say.ev") as model:  # doctest: +SKIP
        ...     for word in model.words(frame):
        ...         print(word.text, end=" ", flush=True)
    """

    def __init__(
        self,
        programs: tuple[Program, Program],
        decoder: CaptionDecoder,
        *,
        end: int,
        max_length: int,
        explained: str = "",
        options: RunOptions = _DEFAULTS,
    ) -> None:
        """Take over the programs of the two stages, which are closed with the model."""
        self._lifetime = Lifetime("the model")
        self._programs = programs
        self.decoder = decoder
        self._end, self._max_length, self._explained = end, max_length, explained
        self._whole, self._lock = threading.Lock(), threading.Lock()
        self._generation = 0
        encode, step = programs
        try:
            self._check = FeedCheck(encode.inputs, {}, None)
            self._search = TokenStream(encode, step, options)
        except BaseException:
            self._lifetime.end()
            for program in programs:
                program.close()
            raise

    def words(self, frame: Image) -> Iterator[Word]:
        """Give the words of `frame: uint8[H, W, 3]`, host, one after the other.

        Raises:
            FrameError: the frame has the wrong dtype or shape.
            StaleViewError: another frame was begun before the last word.
            ClosedError: the model is closed.
            RunError: the engine or the device failed.
        """
        with self._whole:
            return self._words(self._begin(frame))

    def __call__(self, frame: Image) -> CaptionResult:
        """Return the whole caption of `frame: uint8[H, W, 3]`, host; see `words`."""
        start_ns = perf_counter_ns()
        with self._whole:
            steps = self._steps(self._begin(frame))
            outputs = gather_caption(steps, end=self._end, steps=self._max_length)
        took_ms = (perf_counter_ns() - start_ns) / 1e6
        return self.decoder.decode(outputs, Timings(0.0, took_ms, 0.0))

    def explain(self) -> str:
        """Say which artifacts run, and why."""
        return self._explained

    def close(self) -> None:
        """Wait for a running step, then free everything; safe to call twice and on any thread."""
        with self._lock:
            if self._lifetime.end():
                try:
                    self._search.close()
                finally:
                    for program in self._programs:
                        program.close()

    def _begin(self, frame: Image) -> int:
        feeds = self._check(self.decoder.feeds(frame))
        (pixels,) = feeds.values()
        assert not isinstance(pixels, DeviceArray)  # the check takes none
        with self._lock:
            self._lifetime.check()
            self._generation += 1
            self._search.start(pixels)
            return self._generation

    def _words(self, generation: int) -> Iterator[Word]:
        for step in self._steps(generation):
            token = int(step[_TOKEN][0])
            if token == self._end:
                return
            (text,) = self.decoder.vocabulary.words([token])
            places = step[_PLACES][0] if _PLACES in step else None
            yield Word(text, token, float(step[_GAINED][0]), places)

    def _steps(self, generation: int) -> Iterator[dict[str, Array]]:
        """Give the steps of one frame, the end among them."""
        for _ in range(self._max_length):
            with self._lock:
                self._lifetime.check()
                if generation != self._generation:
                    raise StaleViewError(
                        "the words of this frame ended when another frame was begun; take all of "
                        "them first, or load a second model"
                    )
                found = self._search.step()
            yield found
            if int(found[_TOKEN][0]) == self._end:
                return

    def __enter__(self) -> StreamingCaptioner:
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
        if lifetime is not None and lifetime.is_forgotten:
            with suppress(Exception):  # a destructor has nobody to tell
                self.close()
            lifetime.warn()


def check_stages(encode: Program, step: Program) -> list[str]:
    """Return the names of what each step makes anew.

    Raises:
        EngineLoadError: the step does not take what the encoder gives, or what it gave itself.
    """
    given = {spec.name: spec for spec in encode.outputs}
    taken = {spec.name: spec for spec in step.inputs}
    made = {spec.name: spec for spec in step.outputs}
    carried = [name for name in taken if name + NEXT in made]
    again = {k: TensorSpec(k, made[k + NEXT].dtype, made[k + NEXT].shape) for k in carried}
    payload = {name for name in made if not name.endswith(NEXT)}
    fits = given == taken and again == {name: taken[name] for name in carried}
    if not fits or _TOKEN not in carried or not {_GAINED} <= payload <= {_GAINED, _PLACES}:
        raise EngineLoadError(
            f"the step takes {', '.join(map(str, step.inputs))} and gives "
            f"{', '.join(map(str, step.outputs))}, which does not follow on the encoder's "
            f"{', '.join(map(str, encode.outputs))}. Build the bundle again."
        )
    return carried
