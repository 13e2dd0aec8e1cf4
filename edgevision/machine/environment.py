"""What a benchmark ran on: without it a number means nothing.

Each entry is a value, or says why there is none.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edgevision.machine.jetson import board_model, read_jetson

_PACKAGES = (
    "edgevision",
    "numpy",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "cuda-bindings",
    "pycuda",
)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

# What makes two runs unlike, so that comparing them would compare machines.
COMPARED = ("machine", "processor", "cores", "gpu", "driver", "power mode", "governor")


def environment() -> dict[str, str]:
    """Return machine, clocks and versions; asks, changes nothing."""
    jetson = read_jetson()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "machine": board_model() or platform.machine(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "governor": _text(_GOVERNOR) or "not told by this kernel",
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "power mode": (jetson.power_mode or "not told") if jetson else "not a Jetson",
        **_gpu(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def unlike(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return what differs between two environments so that their times must not be compared."""
    return [
        f"{key}: {one.get(key)} against {other.get(key)}"
        for key in COMPARED
        if one.get(key) != other.get(key)
    ]


def _gpu() -> dict[str, str]:
    try:
        import pynvml
    except ImportError:
        return {"gpu": "not asked: pip install nvidia-ml-py", "driver": "not asked"}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        found = {"gpu": _decoded(pynvml.nvmlDeviceGetName(handle))}
        found["driver"] = _decoded(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        return {"gpu": f"none: {error}", "driver": f"none: {error}"}
    # On a Jetson NVML initialises and then answers NOT_SUPPORTED.
    asked: dict[str, Callable[[], object]] = {
        "gpu clock, MHz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "gpu temperature, C": lambda: pynvml.nvmlDeviceGetTemperature(
            handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        "gpu throttling, NVML's reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(
            handle
        ),
    }
    for key, ask in asked.items():
        try:
            found[key] = str(ask())
        except pynvml.NVMLError as error:
            found[key] = f"not told: {error}"
    return found


def _processor() -> str:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "not told"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _decoded(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
