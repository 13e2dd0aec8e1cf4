"""What a benchmark ran on, kept beside its numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path


def environment() -> dict[str, object]:
    """Return machine, load and versions."""
    packages = ("numpy", "onnxruntime", "edgevision")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
