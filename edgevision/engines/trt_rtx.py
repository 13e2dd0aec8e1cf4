"""The builder for desktop RTX GPUs: TensorRT for RTX, which builds without any GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgevision._optional import require
from edgevision.bundle.flavours import TRT_RTX
from edgevision.engines.request import Builder, BuildRequest, BuildResult
from edgevision.engines.tensorrt_network import build_plan
from edgevision.errors import BuildError
from edgevision.progress import Progress

if TYPE_CHECKING:
    import tensorrt_rtx


class RtxBuilder(Builder):
    """Builds one engine for all compute capabilities of the target."""

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the engine to `request.output`; its `sm` are those that this version knows.

        Raises:
            BuildError: the graph cannot be built, or this TensorRT-RTX knows none of the GPUs.
            MissingDependencyError: TensorRT-RTX is not installed.
        """
        trt = require("tensorrt_rtx", extra="rtx")
        known = {
            sm: getattr(trt.ComputeCapability, _member(sm))
            for sm in request.target.sm
            if hasattr(trt.ComputeCapability, _member(sm))
        }
        if not known:
            raise BuildError(
                f"TensorRT-RTX {trt.__version__} builds for none of the GPUs of "
                f"'{request.target.name}': SM {', '.join(request.target.sm) or 'not given'}"
            )

        def configure(config: tensorrt_rtx.IBuilderConfig) -> None:
            config.num_compute_capabilities = len(known)
            for i, (sm, capability) in enumerate(known.items()):
                if not config.set_compute_capability(capability, i):
                    raise BuildError(f"TensorRT-RTX {trt.__version__} refuses to build for SM {sm}")

        inputs, outputs = build_plan(trt, request, progress, configure)
        version = str(trt.__version__)
        return BuildResult(request.output, self.flavour, version, tuple(known), inputs, outputs)


BUILDER = RtxBuilder(TRT_RTX)


def _member(sm: str) -> str:
    return "SM" + sm.replace(".", "")
