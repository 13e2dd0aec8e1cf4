"""What this machine has for edgevision and what it lacks, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import tempfile
from dataclasses import dataclass

from edgevision.engines.builder import unavailable
from edgevision.targets import known_targets

_PACKAGES = (
    ("numpy", "", "arrays"),
    ("onnxruntime", "ort", "runs bundles on the CPU"),
    ("torch", "export", "exports models"),
    ("onnx", "export", "exports models"),
    ("tensorrt-rtx-cu13", "rtx", "builds engines for RTX GPUs"),
    ("tensorrt", "tensorrt", "builds and runs engines for Jetson and data-centre GPUs"),
    ("cuda-bindings", "cuda", "CUDA from Python"),
    ("pycuda", "pycuda", "CUDA from Python"),
    ("pillow", "media", "reads images"),
    ("av", "media", "reads videos"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and what to type if it is missing."""

    what: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, the optional packages, each target and the disk; changes nothing."""
    findings = [
        Finding(
            "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        )
    ]
    for package, extra, purpose in _PACKAGES:
        try:
            findings.append(Finding(package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            remedy = f"pip install 'edgevision[{extra}]'" if extra else f"pip install {package}"
            findings.append(Finding(package, f"not installed ({purpose})", remedy))
    for target in known_targets():
        reason = unavailable(target)
        findings.append(Finding(f"target {target.name}", reason or "builds here"))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    findings.append(Finding("free for builds", f"{free / 1e9:.1f} GB in {tempfile.gettempdir()}"))
    return findings
