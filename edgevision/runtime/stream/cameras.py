"""A pipeline of several cameras: each brings its frames when it has them, and sets go in.

A frame is copied once when it comes, since it may have to wait, or be shown again, and once more
into the slot of its set. The set goes in on the thread that brought its last frame, or on a thread
of the pipeline's own where it waited in vain.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter_ns
from typing import Any, TypeVar

import numpy as np

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ClosedError, EdgeVisionError, FrameError
from edgevision.runtime.device.memory import Array
from edgevision.runtime.slots.recycle import Recycler
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.sets import CameraState, Sets, SyncOptions
from edgevision.tasks.cameras import CameraResults, CamerasDecoder
from edgevision.tasks.interop import import_array
from edgevision.tasks.task import Result

R = TypeVar("R", bound=Result)

_log = logging.getLogger(__name__)


class CameraPipeline(Pipeline[Sequence[Any], CameraResults[R]]):
    """Takes frames camera by camera, and runs them set by set; made by `Model.stream(cameras=)`.

    A set's ticket has the `CameraSet` as its `meta`. `submit` takes a set that is one already.

    Example:
        >>> with model.stream(cameras=6, sync_ms=10) as pipeline:  # doctest: +SKIP
        ...     pipeline.submit_camera(3, frame, stamp_ns=stamp_ns)  # on each camera's own thread
        ...     newest = pipeline.latest()
        ...     print(pipeline.cameras()[3].state, newest.meta.stale, newest.result()[3])
    """

    def __init__(self, codec: CamerasDecoder[R], sync: SyncOptions, **given: Any) -> None:
        """Open it; `given` is what `Pipeline` takes.

        Raises:
            ValueError: the model does not take as many cameras, or not as few as may be left.
        """
        least, most = codec.count
        if not least <= sync.cameras <= most:
            expected = str(most) if least == most else f"{least} to {most}"
            raise ValueError(
                f"cameras: got {sync.cameras}, and the model takes {expected}. Build it with "
                "cameras= for as many"
            )
        if sync.missing == "without" and least == sync.cameras:
            raise ValueError(
                f'missing: got "without", and the model takes no fewer than {least} cameras. Build '
                f'it with cameras=(1, {sync.cameras}), or give missing="stale" or "drop"'
            )
        self._one, self._sync = codec.one, sync
        camera = codec.camera
        self._spec = TensorSpec(camera.name, DType.UINT8, (1, *camera.layout.shape))
        self._memory = [Recycler(np.empty(self._spec.shape, np.uint8)) for _ in range(sync.cameras)]
        # A signal's handler may call anything in the middle of anything.
        self._collecting, self._in_order = threading.RLock(), threading.RLock()
        self._sets: Sets[Array] = Sets(sync, least=least, now_ns=perf_counter_ns())
        self._dead: frozenset[int] = frozenset()
        self._errors: list[EdgeVisionError] = []
        self._wake: SimpleQueue[None] = SimpleQueue()
        super().__init__(codec=codec, **given)
        weakref.finalize(self, self._wake.put, None).atexit = False
        threading.Thread(
            target=_keep_time,
            args=(weakref.ref(self), self._wake),
            name="edgevision cameras",
            daemon=True,
        ).start()

    def submit_camera(
        self, camera: int, frame: Any, *, stamp_ns: int | None = None, meta: object = None
    ) -> None:
        """Take one camera's frame; it is copied before the call returns, and may be used again.

        Args:
            camera: its number, from 0.
            frame: what a model of one camera takes, in the host's memory.
            stamp_ns: when the frame was taken, by the pipeline's clock, which all cameras share;
                now if not given.
            meta: anything that is to come out with the answer, in `CameraSet.metas`.

        Raises:
            ValueError: there is no such camera, or the stamp is of another clock or unit.
            FrameError: the frame has the wrong dtype or shape.
            ClosedError: the pipeline is closed.
            RunError: see `Pipeline.submit`; also of a set that went in since the last call.
        """
        self._check_usable()
        if type(camera) is not int or not 0 <= camera < self._sync.cameras:
            raise ValueError(
                f"camera: got {camera!r:.40}, and the pipeline was opened for "
                f"{self._sync.cameras}: 0 to {self._sync.cameras - 1}"
            )
        if stamp_ns is None:
            stamp_ns = self._clock.now_ns()
        self._clock.stamp_ns(stamp_ns)  # refuses another clock's
        copied = self._memory[camera].copy(self._checked(camera, frame))
        with self._collecting:
            now_ns = perf_counter_ns()
            self._sets.add(camera, stamp_ns, copied, meta, now_ns)
        self._pass_on()
        self._wake.put(None)  # it may have begun a set that waits
        if self._errors:
            raise self._errors.pop(0)

    def cameras(self) -> tuple[CameraState, ...]:
        """Return how each camera does: whether it is late or dead, and what became of its frames.

        Raises:
            ClosedError: this is a forked child.
        """
        self._lifetime.check_process()
        with self._collecting:
            return self._sets.cameras(perf_counter_ns())

    @property
    def dropped_sets(self) -> int:
        """How many sets were not run, for want of frames; none of them is in `counters`."""
        return self._sets.dropped

    def ask_to_close(self, *, drain: bool = False) -> None:
        """Take no more frames, and end once those inside are done; sets that wait are dropped."""
        super().ask_to_close(drain=drain)
        self._wake.put(None)

    def expire(self) -> int | None:
        """Let sets in that have waited long enough; return when the next will have, None if none.

        For the pipeline's own thread.
        """
        now_ns = perf_counter_ns()
        with self._collecting:
            due_ns = self._sets.expire(now_ns)
            states = self._sets.cameras(now_ns)
        dead = frozenset(i for i, one in enumerate(states) if one.state == "dead")
        for camera in sorted(dead - self._dead):
            _log.warning(
                "camera %d is dead: no frame for %.0f ms; sets go on without waiting for it",
                camera, self._sync.dead_ms,
            )  # fmt: skip
        for camera in sorted(self._dead - dead):
            _log.warning("camera %d is back", camera)
        self._dead = dead
        try:
            self._pass_on()
        except ClosedError:
            pass  # it was closed meanwhile
        except EdgeVisionError as error:
            self._errors.append(error)  # for who brings the next frame
        return due_ns

    def _checked(self, camera: int, frame: Any) -> Array:
        """Return a frame of the host's as the graph takes it; FrameError if it is not one."""
        try:
            (found,) = self._one.feeds(frame).values()
            array = import_array(found, self._spec)
        except FrameError as error:
            raise FrameError(f"camera {camera}: {error}") from error
        if not isinstance(array, np.ndarray):
            raise FrameError(
                f"camera {camera}: its frame is on a GPU, and frames that wait for others do so "
                "in the host's memory. Copy it to the host, or collect sets yourself: `submit`"
            )
        if array.dtype != np.uint8 or array.shape != self._spec.shape:
            raise FrameError(
                f"camera {camera}: got {array.dtype}{list(array.shape)}, expected {self._spec}"
            )
        return array

    def _pass_on(self) -> None:
        """Submit the sets that are closed, in order, whoever closed them."""
        with self._in_order:
            while True:
                with self._collecting:
                    if not self._sets.closed:
                        return
                    closed = self._sets.closed.popleft()
                self.submit(closed.frames, stamp_ns=closed.stamp_ns, meta=closed.described)


def _keep_time(pipeline: weakref.ref[CameraPipeline[Any]], wake: SimpleQueue[None]) -> None:
    """Let sets in that wait in vain, for as long as the pipeline is there."""
    wait_s: float | None = None
    while True:
        with suppress(Empty):
            wake.get(timeout=wait_s)
            while True:
                wake.get_nowait()
        here = pipeline()
        if here is None or not here.is_open:
            return
        due_ns = here.expire()
        del here
        wait_s = None if due_ns is None else max(0.0, (due_ns - perf_counter_ns()) / 1e9)
