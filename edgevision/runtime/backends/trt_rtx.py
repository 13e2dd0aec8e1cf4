"""TensorRT for RTX: kernels compiled once per machine and kept, graphs captured by itself."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgevision._optional import require
from edgevision.bundle.user_cache import cache_root, read_cache, write_cache
from edgevision.errors import EngineLoadError
from edgevision.runtime.backends.tensorrt_program import TensorRTProgram
from edgevision.runtime.device.device import Device
from edgevision.runtime.options import RunOptions

if TYPE_CHECKING:
    import tensorrt_rtx

_log = logging.getLogger(__name__)


def open_program(plan: bytes, device: Device, options: RunOptions) -> TensorRTRTXProgram:
    """Load a TensorRT-RTX plan; `options.graph` lets it capture its own CUDA graphs.

    Raises:
        EngineLoadError: it refuses the plan or this GPU; gives its own words.
        MissingDependencyError: TensorRT-RTX is not installed.
    """
    trt = require("tensorrt_rtx", extra="rtx")
    return TensorRTRTXProgram(trt, plan, device, graph=options.graph)


class TensorRTRTXProgram(TensorRTProgram):
    """See `TensorRTProgram`; `close` writes the compiled kernels to this user's cache."""

    def __init__(self, trt: ModuleType, plan: bytes, device: Device, *, graph: bool) -> None:
        title = f"TensorRT-RTX {trt.__version__}"
        self._file = cache_file(plan, trt.__version__, device.name)
        self._graph = graph
        self._cache: tensorrt_rtx.IRuntimeCache | None = None
        self._config: tensorrt_rtx.IRuntimeConfig | None = None
        super().__init__(
            trt,
            plan,
            device,
            title=title,
            no_graph="TensorRT-RTX captures its own graph" if graph else "switched off",
            make_context=self._context,
        )

    def _context(self, engine: tensorrt_rtx.ICudaEngine) -> tensorrt_rtx.IExecutionContext:
        if self._config is None:
            self._configure(engine)
        return engine.create_execution_context(self._config)

    def _configure(self, engine: tensorrt_rtx.ICudaEngine) -> None:
        trt = self._trt
        config = engine.create_runtime_config()
        if config is None:
            raise EngineLoadError(f"{self.version} makes no runtime config: {self.told()}")
        cache: tensorrt_rtx.IRuntimeCache = config.create_runtime_cache()
        kept = read_cache(self._file)
        # It checks the version, GPU and driver itself, and takes nothing that does not fit.
        if kept is not None and not cache.deserialize(kept):
            _log.info("compiled kernels in %s do not fit any more", self._file)
        config.set_runtime_cache(cache)
        if self._graph:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._config, self._cache = config, cache

    def close(self) -> None:
        """Keep the compiled kernels for the next load, then free the engine."""
        cache: tensorrt_rtx.IRuntimeCache | None = self._cache
        if cache is not None:
            with self.device.active(), contextlib.suppress(OSError):
                write_cache(self._file, bytes(cache.serialize()))
        self._cache = self._config = None
        super().close()


def cache_file(plan: bytes, version: str, gpu: str) -> Path:
    """Return where the compiled kernels of a plan are kept."""
    key = hashlib.sha256(b"\0".join([plan, version.encode(), gpu.encode()])).hexdigest()
    return cache_root() / "rtx-kernels" / f"{key}.bin"
