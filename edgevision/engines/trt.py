"""The builder for Jetson, DRIVE and data-centre GPUs: TensorRT, which needs the very GPU."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgevision._optional import require
from edgevision.bundle.flavours import TRT
from edgevision.bundle.targets import TargetProfile
from edgevision.bundle.user_cache import read_cache, write_cache
from edgevision.engines.layer_precision import layers_from_inspector
from edgevision.engines.request import Builder, BuildRequest, BuildResult
from edgevision.engines.tensorrt_network import build_plan, make_logger
from edgevision.errors import BuildError
from edgevision.machine.gpu import compute_capability
from edgevision.progress import Progress

if TYPE_CHECKING:
    import tensorrt


class TrtBuilder(Builder):
    """Builds an engine for this machine's GPU by the TensorRT installed here."""

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can.

        The GPU comes first: without it, no package would help.
        """
        if reason := _gpu_mismatch(target, compute_capability()):
            return reason
        if importlib.util.find_spec("tensorrt") is None:
            return (
                "TensorRT is not installed. On a Jetson use JetPack's, from a virtual environment "
                "with --system-site-packages; elsewhere pip install 'edgevision[tensorrt]'"
            )
        return _version_mismatch(target, self.version())

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the engine to `request.output`.

        Raises:
            BuildError: the graph cannot be built, or this is not the target's GPU or TensorRT.
            MissingDependencyError: TensorRT is not installed.
        """
        sm = compute_capability()
        trt = require("tensorrt", extra="tensorrt")
        version = str(trt.__version__)
        reason = _gpu_mismatch(request.target, sm) or _version_mismatch(request.target, version)
        if sm is None or reason:
            raise BuildError(f"nothing can be built for '{request.target.name}' here: {reason}")
        configs: list[tensorrt.IBuilderConfig] = []

        def configured(config: tensorrt.IBuilderConfig) -> None:
            configure(trt, config, request)
            configs.append(config)

        inputs, outputs = build_plan(trt, request, progress, configured)
        if request.timing_cache is not None:
            keep_timings(configs[0], request.timing_cache)
        layers = _layers(trt, request.output.read_bytes())
        return BuildResult(
            request.output, self.flavour, version, (sm,), inputs, outputs, layers=layers
        )


BUILDER = TrtBuilder(TRT)


def configure(trt: ModuleType, config: tensorrt.IBuilderConfig, request: BuildRequest) -> None:
    """Set what a plan for TensorRT needs beyond what all flavours need."""
    # So that the inspector tells each layer's types.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # The lean runtime inside would be code that every load executes.
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if request.timing_cache is not None:
        _use_timings(config, request.timing_cache)


def _use_timings(config: tensorrt.IBuilderConfig, file: Path) -> None:
    """Give the builder what earlier builds measured; a damaged file counts as empty."""
    timings = config.create_timing_cache(read_cache(file) or b"")
    if timings is None or not config.set_timing_cache(timings, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: tensorrt.IBuilderConfig, file: Path) -> None:
    """Keep what was measured, together with what another build kept meanwhile."""
    timings = config.get_timing_cache()
    if timings is None:
        return
    # Losing it costs the next build some time, and nothing else.
    with contextlib.suppress(OSError):
        if (other := read_cache(file)) is not None:
            timings.combine(config.create_timing_cache(other), True)
        write_cache(file, bytes(timings.serialize()))


def _layers(trt: ModuleType, plan: bytes) -> Mapping[str, int] | None:
    """Return the plan's layers by type, as its own inspector tells them."""
    runtime = trt.Runtime(make_logger(trt))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    payload = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_from_inspector(str(payload))


def _gpu_mismatch(target: TargetProfile, sm: str | None) -> str | None:
    if sm is None:
        return "no NVIDIA GPU on this machine"
    if target.sm and sm not in target.sm:
        return f"this machine's GPU is SM {sm}, the target's is {' or '.join(target.sm)}"
    return None


def _version_mismatch(target: TargetProfile, version: str | None) -> str | None:
    if version is None or target.versions is None or within(version, *target.versions):
        return None
    return (
        f"TensorRT {version} is here, the target has {' to '.join(target.versions)}; a plan runs "
        "only on its own version"
    )


def within(version: str, first: str, last: str) -> bool:
    """Return whether `version` lies in first to last; 10.7.0 lies in 10.3 to 10.7."""
    have, low, high = (
        tuple(int(part) for part in v.split(".")[:2]) for v in (version, first, last)
    )
    return low <= have <= high
