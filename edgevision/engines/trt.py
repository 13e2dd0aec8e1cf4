"""The builder for Jetson, DRIVE and data-centre GPUs: TensorRT, which needs the very GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

from edgevision._optional import require
from edgevision.engines.builder import BuildRequest, Built
from edgevision.engines.gpu import compute_capability
from edgevision.engines.tensorrt_network import build_plan
from edgevision.errors import BuildError
from edgevision.progress import Progress
from edgevision.targets import TargetProfile


class TrtBuilder:
    """Builds an engine for this machine's GPU by the TensorRT installed here."""

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        sm = compute_capability()
        if sm is None:
            return "no NVIDIA GPU on this machine"
        if target.sm and sm not in target.sm:
            return f"this machine's GPU is SM {sm}, the target's is {' or '.join(target.sm)}"
        if importlib.util.find_spec("tensorrt") is None:
            return "TensorRT is not installed; pip install 'edgevision[tensorrt]', or JetPack's own"
        version = _installed_version()
        if version and target.versions and not within(version, *target.versions):
            return f"TensorRT {version} is here, the target has {' to '.join(target.versions)}"
        return None

    def build(self, request: BuildRequest, progress: Progress) -> Built:
        """Write the engine to `request.output`.

        Raises:
            BuildError: the graph cannot be built, or this TensorRT is not the target's.
        """
        trt = require("tensorrt", extra="tensorrt")
        version, sm = str(trt.__version__), compute_capability()
        if sm is None:
            raise BuildError("no NVIDIA GPU on this machine; TensorRT builds on its own GPU alone")
        if request.target.versions and not within(version, *request.target.versions):
            raise BuildError(
                f"TensorRT {version} is here, '{request.target.name}' has "
                f"{' to '.join(request.target.versions)}: a plan runs on its own version alone"
            )

        def configure(_builder: Any, _config: Any) -> None:
            """Leave TensorRT's defaults: precision lives in the graph."""

        inputs, outputs = build_plan(trt, request, progress, configure)
        return Built(version, (sm,), inputs, outputs)


def within(version: str, first: str, last: str) -> bool:
    """Return whether `version` lies in first to last; 10.7.0 lies in 10.3 to 10.7."""
    have, low, high = (
        tuple(int(part) for part in v.split(".")[:2]) for v in (version, first, last)
    )
    return low <= have <= high


def _installed_version() -> str | None:
    """Return the version that pip knows; None where a system package brought TensorRT."""
    try:
        return importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        return None
