"""TensorRT for RTX: kernels compiled once per machine and kept, graphs captured by itself."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgevision._optional import require
from edgevision.bundle.user_cache import cache_root, read_cache, write_cache
from edgevision.errors import EngineLoadError, RunError
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
            no_graph_reason="TensorRT-RTX captures its own graph" if graph else "switched off",
            remedy="rtx",
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
            raise EngineLoadError(f"{self.version} makes no runtime config: {self.pop_reason()}")
        if self._file is not None:
            self._cache = self._kept_kernels(config, self._file)
        if self._graph:
            wanted = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.cuda_graph_strategy = wanted
            if config.cuda_graph_strategy != wanted:  # the setter cannot say no
                self.no_graph_reason = "TensorRT-RTX refuses to capture its own graph"
                _log.warning("%s: %s. %s", self.version, self.no_graph_reason, self.pop_reason())
        self._config = config

    def _kept_kernels(
        self, config: tensorrt_rtx.IRuntimeConfig, file: Path
    ) -> tensorrt_rtx.IRuntimeCache | None:
        """Return the cache of compiled kernels, in use and with what was kept; None without one."""
        cache: tensorrt_rtx.IRuntimeCache | None = config.create_runtime_cache()
        kept = read_cache(file)
        # It checks the version, GPU and driver itself, and takes nothing that does not fit.
        if cache is not None and kept is not None and not cache.deserialize(kept):
            _log.info("compiled kernels in %s do not fit any more", file)
        if cache is None or not config.set_runtime_cache(cache):
            _log.warning(
                "%s refuses a cache of kernels, and compiles them at each load. %s",
                self.version,
                self.pop_reason(),
            )
            return None
        return cache

    def close(self) -> None:
        """Keep the compiled kernels for the next load, then free the engine in any case."""
        cache, self._cache, self._config = self._cache, None, None
        try:
            if cache is not None and self._file is not None:
                with self.device.active(), self.log.calling():
                    kernels: tensorrt_rtx.IHostMemory | None = cache.serialize()
                if kernels is None:
                    raise RunError(self.pop_reason())
                write_cache(self._file, bytes(kernels))
        except Exception as error:  # of the library or the disk; the next load compiles again
            _log.warning("%s: compiled kernels are not kept: %s", self.version, error)
        finally:
            super().close()


def cache_file(plan: bytes, version: str, gpu: str) -> Path | None:
    """Return where the compiled kernels of a plan are kept; see `cache_root`.

    None, and a line in the log, where this user has no home.
    """
    try:
        root = cache_root()
    except FileNotFoundError as error:
        _log.warning("kernels are compiled at each load: %s", error)
        return None
    key = hashlib.sha256(b"\0".join([plan, version.encode(), gpu.encode()])).hexdigest()
    return root / "rtx-kernels" / f"{key}.bin"
