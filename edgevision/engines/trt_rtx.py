"""The builder for desktop RTX GPUs: TensorRT for RTX, which builds without any GPU."""

from __future__ import annotations

import importlib.util
from typing import Any

from edgevision._optional import require
from edgevision.engines.builder import BuildRequest, Built
from edgevision.engines.tensorrt_network import build_plan
from edgevision.errors import BuildError
from edgevision.progress import Progress
from edgevision.targets import TargetProfile


class RtxBuilder:
    """Builds one engine for all compute capabilities of the target."""

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        if importlib.util.find_spec("tensorrt_rtx") is None:
            return "TensorRT for RTX is not installed; pip install 'edgevision[rtx]'"
        return None

    def build(self, request: BuildRequest, progress: Progress) -> Built:
        """Write the engine to `request.output`.

        Raises:
            BuildError: the graph cannot be built, or this TensorRT-RTX knows none of the GPUs.
        """
        trt = require("tensorrt_rtx", extra="rtx")
        known = {
            sm: getattr(trt.ComputeCapability, f"SM{sm.replace('.', '')}")
            for sm in request.target.sm
            if hasattr(trt.ComputeCapability, f"SM{sm.replace('.', '')}")
        }
        if not known:
            raise BuildError(
                f"TensorRT-RTX {trt.__version__} builds for none of SM {request.target.sm}"
            )

        def configure(_builder: Any, config: Any) -> None:
            config.num_compute_capabilities = len(known)
            for i, capability in enumerate(known.values()):
                if not config.set_compute_capability(capability, i):
                    raise BuildError(f"TensorRT-RTX refuses {capability}")

        inputs, outputs = build_plan(trt, request, progress, configure)
        return Built(str(trt.__version__), tuple(known), inputs, outputs)
