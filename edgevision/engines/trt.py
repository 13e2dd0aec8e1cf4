"""The builder for Jetson, DRIVE and data-centre GPUs: TensorRT, which needs the very GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from edgevision._optional import require
from edgevision.engines.builder import BuildRequest, BuildResult
from edgevision.engines.tensorrt_network import build_plan
from edgevision.errors import BuildError
from edgevision.progress import Progress
from edgevision.runtime.cuda.gpu import compute_capability
from edgevision.targets import Flavour, TargetProfile


class TrtBuilder:
    """Builds an engine for this machine's GPU by the TensorRT installed here."""

    flavour = Flavour.TRT

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
        return _version_mismatch(target, _installed_version())

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
        inputs, outputs = build_plan(trt, request, progress)
        return BuildResult(request.output, self.flavour, version, (sm,), inputs, outputs)


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
        "on its own version alone"
    )


def within(version: str, first: str, last: str) -> bool:
    """Return whether `version` lies in first to last; 10.7.0 lies in 10.3 to 10.7."""
    have, low, high = (
        tuple(int(part) for part in v.split(".")[:2]) for v in (version, first, last)
    )
    return low <= have <= high


def _installed_version() -> str | None:
    """Return TensorRT's version without importing it; None if no package metadata tells."""
    # The distribution's name varies: tensorrt, tensorrt-cu12, tensorrt-cu13.
    names = importlib.metadata.packages_distributions().get("tensorrt", [])
    return importlib.metadata.version(names[0]) if names else None
