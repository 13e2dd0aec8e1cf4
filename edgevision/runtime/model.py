"""A loaded model: calls its session, or a pipeline, and decodes the answers as its task says."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Manifest
from edgevision.bundle.tensors import Array
from edgevision.errors import ClosedError, RunError, WrongTaskError
from edgevision.runtime.select import Selection
from edgevision.runtime.session import Session
from edgevision.tasks.task import Decoder, Result

if TYPE_CHECKING:  # imported by the methods that use them: a first answer has no need of asyncio
    from edgevision.runtime.stream.clocks import Clock
    from edgevision.runtime.stream.pipeline import Pipeline
    from edgevision.runtime.stream.schedule import Policy
    from edgevision.runtime.stream.sets import Missing
    from edgevision.runtime.stream.ticket import Ticket
    from edgevision.tasks.generated import GeneratedDecoder, GeneratedResult

Frame = npt.NDArray[np.uint8] | Mapping[str, Array] | Sequence[npt.NDArray[np.uint8]]
R = TypeVar("R", bound=Result)


class Model(Generic[R]):
    """A model ready to run; made by `edgevision.load`, safe to share between threads.

    Attributes:
        manifest: what the bundle says of itself.
        decoder: from frames to feeds and from outputs to results.
        session: the session beneath, for arrays in and arrays out.
        selection: which artifact runs, and why.
    """

    def __init__(
        self, manifest: Manifest, session: Session, selection: Selection, decoder: Decoder[R]
    ) -> None:
        self.manifest = manifest
        self.session = session
        self.selection = selection
        self._is_closing = False
        self._opening = threading.RLock()
        # A pipeline keeps its model; one that is forgotten ends by itself.
        self._pipelines: weakref.WeakSet[Pipeline[Any, Any]] = weakref.WeakSet()
        self.decoder = decoder
        self._feeds, self._run, self._decode = decoder.feeds, session.run_timed, decoder.decode

    def __call__(self, frame: Frame, *, is_cut: bool = False) -> R:
        """Run the model once.

        Args:
            frame: uint8[H, W, 3] or uint8[1, H, W, 3], host, of the size and channel order of
                `decoder.camera`; for a model with plain tensors, its inputs by name. Arrays of
                other
                libraries, on the host or the GPU, are taken by DLPack, and by the CUDA array
                interface where they have no DLPack. One of its version 2, which names no stream,
                counts as ready in the legacy default stream: synchronise any other before. A model
                of several cameras takes a list of frames, or one array with the cameras first.
            is_cut: whether this frame does not follow on the last, as after a cut of the scene: a
                model with state forgets that first, and for all others it means nothing.

        Raises:
            FrameError: the input has the wrong dtype or shape.
            ClosedError: the model is closed.
            CudaError: the device failed.
        """
        feeds = self._feeds(frame)
        outputs, timings = self._run(feeds, is_cut=True) if is_cut else self._run(feeds)
        return self._decode(outputs, timings)

    def reset(self) -> None:
        """Forget the state of the frames so far; the next call begins as the first did.

        A pipeline has a state of its own, and a `reset` of its own.

        Raises:
            ClosedError: the model is closed.
        """
        self.session.reset()

    def generate(self, seeds: int | Iterable[int], **given: object) -> GeneratedResult:
        """Make one picture of each seed, however many seeds there are.

        A seed draws the same numbers on every machine and in every batch. Pixels may differ by a
        level, as kernels round differently for other batch sizes and devices.

        Args:
            seeds: integers from 0 to 2**64 - 1, any number of them.
            given: what shall not come from the seeds, by input name: a value for all pictures, or
                one for each.

        Raises:
            ValueError: there is no seed, or one is out of range.
            WrongTaskError: the model is not a generator.
            FrameError: a given value does not fit its input.
            ClosedError: the model is closed.
            CudaError: the device failed.

        Example:
            >>> model.generate(range(64), label=3).save("threes.png")  # doctest: +SKIP
        """
        from edgevision.tasks.seeds import checked_seeds

        decoder = self.generator()
        checked = checked_seeds(seeds)
        parts = [
            decoder.decode(*self.session.run_timed(feeds))
            for feeds in decoder.batches(checked, given)
        ]
        return decoder.join(parts, checked)

    def generator(self) -> GeneratedDecoder:
        """Return the decoder of a model that makes pictures of seeds.

        Raises:
            WrongTaskError: the model is not a generator.
        """
        from edgevision.tasks.generated import GeneratedDecoder

        decoder: object = self.decoder
        if not isinstance(decoder, GeneratedDecoder):
            raise WrongTaskError(
                f"'{self.manifest.name}' is not a generator (task {self.manifest.task}): call the "
                "model with a frame"
            )
        return decoder

    def stream(
        self,
        *,
        slots: int = 3,
        policy: Policy = "latest",
        deadline_ms: float | None = None,
        on_late: Literal["deliver", "drop"] = "deliver",
        stall_ms: float = 10_000.0,
        trace: str | os.PathLike[str] | None = None,
        on_result: Callable[[Ticket[R]], None] | None = None,
        clock: Clock = "perf_counter",
        cameras: int | None = None,
        sync_ms: float = 10.0,
        wait_ms: float | None = None,
        missing: Missing = "drop",
        dead_ms: float = 1000.0,
    ) -> Pipeline[Any, Any]:
        """Open a pipeline for frames that come at camera rate; see `StreamOptions`.

        The pipeline has its own slots beside the session's, and is closed with the model at the
        latest. Its answers are what calling the model returns.

        Args:
            slots: frames in the pipeline at most (in `load`, threads that run the model at once).
            policy: which frame goes when all slots are in use.
            deadline_ms: after its stamp an answer is late.
            on_late: whether late answers are delivered, marked, or dropped.
            stall_ms: a device that has not answered for so long is reported as stuck.
            trace: a file to be made, with every frame's stages for ui.perfetto.dev.
            on_result: called with each ticket that ran, in order, on the pipeline's own thread.
            clock: what `submit(stamp_ns=)` goes by: "perf_counter", "monotonic", "realtime" (as
                ROS and PTP do), or a function that returns the time in nanoseconds.
            cameras: how many cameras bring their frames one by one, for a model of several; they
                are put together by their stamps, and a `CameraPipeline` is returned.
            sync_ms: how far the stamps of one set may be apart; this and what follows: see
                `SyncOptions`.
            wait_ms: how long a set waits for the rest; by default twice `sync_ms`.
            missing: "drop", "without" or "stale": what becomes of a set without some camera.
            dead_ms: a camera that has given nothing for so long is dead.

        Returns:
            A `Pipeline`, or with `cameras` a `CameraPipeline`.

        Raises:
            ValueError: an option is out of range.
            WrongTaskError: `cameras` was given, and the model takes one frame.
            FileWriteError: the trace's file exists, or cannot be made.
            ClosedError: the model is closed.
            RunError: no thread can be started for it.

        Example:
            >>> with model.stream(policy="latest", deadline_ms=50) as pipeline:  # doctest: +SKIP
            ...     ticket = pipeline.submit(frame)
            ...     mask = ticket.result().mask
        """
        from edgevision.runtime.stream.schedule import StreamOptions

        options = StreamOptions(slots, policy, deadline_ms, on_late, stall_ms, trace)
        make = self._open_pipeline(cameras, sync_ms, wait_ms, missing, dead_ms)
        session = self.session
        with self._opening:  # `close` waits for it, and then closes this one, too
            session.check_open()
            if self._is_closing:
                raise ClosedError("the model is being closed; load it again")
            pipeline = make(
                program=session.program,
                profiles=session.profiles,
                options=options,
                run_options=session.options,
                on_result=on_result,
                clock=clock,
                shared=session.shared,
                owner=self,
                state=session.state,
            )
            self._pipelines.add(pipeline)
        return pipeline

    def _open_pipeline(self, cameras: int | None, *sync: Any) -> Callable[..., Pipeline[Any, Any]]:
        """Return what makes the pipeline."""
        from edgevision.runtime.stream.pipeline import Pipeline

        if cameras is None:
            return partial(Pipeline, codec=self.decoder)
        from edgevision.runtime.stream.cameras import CameraPipeline
        from edgevision.runtime.stream.sets import SyncOptions
        from edgevision.tasks.cameras import cameras_decoder

        decoder = cameras_decoder(self.decoder)
        if decoder is None:
            raise WrongTaskError(
                f"'{self.manifest.name}' takes one frame, not those of {cameras} cameras: build it "
                f"with cameras={cameras}, or open a pipeline for each camera"
            )
        return partial(CameraPipeline, decoder, SyncOptions(cameras, *sync))

    def explain(self) -> str:
        """Say which artifact runs, why, on what and how, and why the others do not."""
        return f"{self.selection}\n{self.session.explain()}"

    def close(self) -> None:
        """Close its pipelines, dropping what waits in them, and free what it holds.

        Safe to call twice and on any thread, and each call waits. In a callback it asks the
        pipelines to end; the program is freed once the last of them has.

        Raises:
            StalledError: a pipeline's device does not answer; what it holds is abandoned.
            CallbackError: a callback raised and nobody has been told yet. All is closed.
        """
        with self._opening:
            self._is_closing = True
            pipelines = list(self._pipelines)
        for pipeline in pipelines:
            pipeline.ask_to_close()
        first: RunError | None = None
        if not any(pipeline.is_inside for pipeline in pipelines):
            for pipeline in pipelines:
                try:
                    pipeline.close(drain=False)
                except RunError as error:
                    first = first or error
        self.session.close()
        if first is not None:
            raise first

    def __enter__(self) -> Model[R]:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except RunError:
            if error is None:  # never mask what the user's block raised
                raise
