"""TensorRT 10.3 to 11.x: the full wheel where it is installed, else the lean runtime."""

from __future__ import annotations

from edgevision._optional import require
from edgevision.errors import MissingDependencyError
from edgevision.runtime.backends.tensorrt_program import TensorRTProgram
from edgevision.runtime.device.device import Device
from edgevision.runtime.options import RunOptions


def open_program(plan: bytes, device: Device, options: RunOptions) -> TensorRTProgram:
    """Load a TensorRT plan.

    Raises:
        EngineLoadError: TensorRT refuses it; gives TensorRT's own words.
        MissingDependencyError: neither full nor lean TensorRT is installed.
    """
    try:
        trt = require("tensorrt", extra="tensorrt")
        title = f"TensorRT {trt.__version__}"
    except MissingDependencyError:
        # Runs only version-compatible plans, in a tenth of the space.
        trt = require("tensorrt_lean", extra="tensorrt")
        title = f"TensorRT lean runtime {trt.__version__}"
    return TensorRTProgram(trt, plan, device, title=title)
