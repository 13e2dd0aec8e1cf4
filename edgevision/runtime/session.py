"""A session: one program, its buffers bound once, arrays in and arrays out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from time import perf_counter_ns
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgevision.errors import EngineLoadError, FrameError
from edgevision.runtime.backends.ort import OrtExecution, OrtProgram
from edgevision.runtime.lifetime import Lifetime
from edgevision.runtime.timing import Timings
from edgevision.targets import Flavour
from edgevision.tensors import ShapeProfile, TensorSpec

Array = npt.NDArray[np.generic]


class Session:
    """Runs one graph or engine over buffers that it owns; safe to share between threads.

    Example:
        >>> with Session.open(graph, flavour=Flavour.ORT) as session:  # doctest: +SKIP
        ...     outputs = session.run({"frame": frame})
    """

    def __init__(self, program: OrtProgram, profiles: Mapping[str, ShapeProfile]) -> None:
        """Bind buffers to `program`; the session owns them until `close()`."""
        self._lifetime = Lifetime("the session")
        self.program = program
        self.inputs: tuple[TensorSpec, ...] = program.inputs
        self.outputs: tuple[TensorSpec, ...] = program.outputs
        self._profiles = dict(profiles)
        self._allocates = any(spec.is_dynamic for spec in self.outputs)
        self._lock = threading.Lock()
        self._staging: dict[str, Array] = {}
        self._results: dict[str, Array | None] = {}
        self._execution: OrtExecution | None = None
        if not any(spec.is_dynamic for spec in self.inputs):
            self._bind({spec.name: spec.shape for spec in self.inputs})

    @staticmethod
    def open(
        graph: bytes,
        *,
        flavour: Flavour,
        profiles: Mapping[str, ShapeProfile] | None = None,
    ) -> Session:
        """Load `graph` with the runtime `flavour` and make it ready to run.

        Raises:
            EngineLoadError: this version has no such runtime, or it refuses the graph.
            MissingDependencyError: the runtime is not installed.
        """
        if flavour is not Flavour.ORT:
            raise EngineLoadError(
                f"this edgevision cannot run '{flavour.value}' artifacts yet; it runs "
                "ONNX Runtime's. Plans are byte-exact: trtexec and other loaders take them."
            )
        return Session(OrtProgram(graph), profiles or {})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; the returned arrays are the caller's.

        Raises:
            FrameError: an input is missing, unknown, or has the wrong dtype or shape.
            ClosedError: the session is closed.
        """
        return self.run_timed(feeds)[0]

    def run_timed(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], Timings]:
        """Run once and say how long each part took; see `run`."""
        self._check(feeds)
        with self._lock:
            self._lifetime.check()
            start_ns = perf_counter_ns()
            shapes = {name: feed.shape for name, feed in feeds.items()}
            if any(self._staging[n].shape != s for n, s in shapes.items() if n in self._staging):
                self._execution = None
            execution = self._execution or self._bind(shapes)
            for name, feed in feeds.items():
                np.copyto(self._staging[name], feed)
            copied_ns = perf_counter_ns()
            execution.run()
            computed_ns = perf_counter_ns()
            if self._allocates:
                fetched = execution.fetch()
                outputs = {spec.name: f for spec, f in zip(self.outputs, fetched, strict=True)}
            else:
                outputs = {n: r.copy() for n, r in self._results.items() if r is not None}
            done_ns = perf_counter_ns()
        timings = Timings(
            (copied_ns - start_ns) / 1e6,
            (computed_ns - copied_ns) / 1e6,
            (done_ns - computed_ns) / 1e6,
        )
        return outputs, timings

    def _check(self, feeds: Mapping[str, Array]) -> None:
        known = {spec.name for spec in self.inputs}
        if feeds.keys() != known:
            raise FrameError(
                f"inputs: got {sorted(feeds)}, this model takes {sorted(known)}. "
                f"Give exactly: {', '.join(str(spec) for spec in self.inputs)}"
            )
        for spec in self.inputs:
            check_feed(spec, feeds[spec.name], self._profiles.get(spec.name))

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> OrtExecution:
        staging = {s.name: np.zeros(shapes[s.name], s.dtype.numpy) for s in self.inputs}
        results = {
            s.name: None if s.is_dynamic else np.zeros(s.shape, s.dtype.numpy) for s in self.outputs
        }
        execution = self.program.execution(staging, results)
        self._staging, self._results, self._execution = staging, results, execution
        return execution

    def close(self) -> None:
        """Free the buffers; safe to call twice and from any thread."""
        with self._lock:
            if self._lifetime.end():
                self._execution = None
                self._staging, self._results = {}, {}

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
        if lifetime := getattr(self, "_lifetime", None):
            lifetime.warn_if_open()


def check_feed(spec: TensorSpec, feed: Array, profile: ShapeProfile | None) -> None:
    """Check one input against its description.

    Raises:
        FrameError: the dtype or shape is wrong; says what would be right.
    """
    if not isinstance(feed, np.ndarray):
        raise FrameError(
            f"input '{spec.name}': got {type(feed).__name__}, expected a numpy array {spec}"
        )
    if feed.dtype != spec.dtype.numpy or not spec.accepts(feed.shape):
        raise FrameError(
            f"input '{spec.name}': got {feed.dtype}{list(feed.shape)}, expected {spec}. "
            "Convert or resize it, or build the bundle for this shape."
        )
    if profile is not None and not profile.allows(feed.shape):
        raise FrameError(
            f"input '{spec.name}': shape {list(feed.shape)} lies outside the profile "
            f"{list(profile.minimum)} to {list(profile.maximum)}. Build with a wider profile."
        )
