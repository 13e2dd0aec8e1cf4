"""Captions token by token: an encoder and a step engine, with the state kept on the device.

For long texts, and for those who want each word as soon as it is known; a whole caption comes
faster from one graph.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import NEXT, Image
from edgevision.errors import StaleViewError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.memory import Array
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import FeedCheck
from edgevision.runtime.slots.state import StatefulRun, carried_names, does_not_follow
from edgevision.tasks.caption import CaptionDecoder, CaptionResult, gather_caption
from edgevision.tasks.timings import Timings

_TOKEN, _GAINED, _PLACES = "token", "gained", "places"
_DEFAULTS = RunOptions()


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
            carried = {name + NEXT for name in carried_names(encode, step)}
            payload = {spec.name for spec in step.outputs} - carried
            if _TOKEN + NEXT not in carried or not {_GAINED} <= payload <= {_GAINED, _PLACES}:
                raise does_not_follow(encode, step)
            self._check = FeedCheck(encode.inputs, {}, encode.device)
            self._search = StatefulRun(encode, step, options, told=(_TOKEN + NEXT,))
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
        with self._lock:
            self._lifetime.check()
            self._generation += 1
            self._search.begin(feeds)
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
            found[_TOKEN] = found.pop(_TOKEN + NEXT)
            yield found
            if int(found[_TOKEN][0]) == self._end:
                return

    def __enter__(self) -> StreamingCaptioner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        lifetime = getattr(self, "_lifetime", None)
        if lifetime is not None and lifetime.is_forgotten:
            with suppress(Exception):  # a destructor has nobody to tell
                self.close()
            lifetime.warn()
