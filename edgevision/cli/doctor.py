"""What this machine has for edgevision and what it lacks, each with its remedy."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgevision._optional import installed_version, require
from edgevision.bundle.flavours import flavours
from edgevision.bundle.targets import known_targets
from edgevision.engines.registry import unavailable
from edgevision.errors import CudaError, MissingDependencyError
from edgevision.machine.gpu import no_gpu_reason
from edgevision.machine.identity import gpu_name
from edgevision.machine.jetson import Jetson, Memory, read_jetson, read_memory
from edgevision.runtime.backends.tensorrt_program import start_failure_reason
from edgevision.runtime.device.cuda.device import cuda_device

_PACKAGES = (
    ("numpy", "", "arrays"),
    ("torch", "export", "exports models"),
    ("onnx", "export", "exports models"),
    ("cuda-bindings", "cuda", "CUDA from Python"),
    ("pycuda", "pycuda", "CUDA from Python"),
    ("pillow", "media", "reads images"),
    ("av", "media", "reads videos"),
)

# What a build of a net of this project's size needs; below it NVIDIA's builder swaps or is killed.
_MIN_MEMORY_BYTES = 2e9
_MIN_DISK_BYTES = 2e9


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
    for flavour in flavours():
        here = next(filter(None, map(installed_version, flavour.modules)), None)
        missing = Finding(flavour.title, f"not installed ({flavour.purpose})", flavour.remedy)
        findings.append(missing if here is None else Finding(flavour.title, here))
    for target in known_targets():
        reason = unavailable(target)
        findings.append(Finding(f"target {target.name}", reason or "builds here"))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    remedy = "" if free >= _MIN_DISK_BYTES else "export TMPDIR=/a/folder/with/2/GB"
    where = tempfile.gettempdir()
    findings.append(Finding("free for builds", f"{free / 1e9:.1f} GB in {where}", remedy))
    return [*findings, *examine_gpu(), *examine_jetson()]


def examine_gpu() -> list[Finding]:
    """Look at the GPU, and try what would run on it; changes nothing."""
    if reason := no_gpu_reason():
        return [Finding("gpu", reason, "nvidia-smi   # it must list the GPU" * ("CUres" in reason))]
    findings = [Finding("gpu", gpu_name())]
    try:
        device = cuda_device()
    except (CudaError, MissingDependencyError) as error:
        return [
            *findings,
            Finding("cuda from python", str(error), "pip install 'edgevision[cuda]'"),
        ]
    findings.append(Finding("cuda from python", f"{device.binding} starts"))
    for module, extra in (("tensorrt_rtx", "rtx"), ("tensorrt", "tensorrt")):
        try:
            reason, remedy = start_failure_reason(require(module, extra=extra), device)
        except MissingDependencyError:
            continue  # listed above, with its remedy
        found = f"does not start: {reason}" if reason else "starts"
        findings.append(Finding(f"{module} on it", found, remedy))
    with contextlib.suppress(MissingDependencyError):
        providers = require("onnxruntime", extra="ort").get_available_providers()
        has_cuda = "CUDAExecutionProvider" in providers
        # Not a fault: TensorRT is what runs on GPUs.
        found = "has its CUDA provider" if has_cuda else "runs on the CPU: it has no CUDA provider"
        findings.append(Finding("onnxruntime on it", found))
    return findings


def examine_jetson(root: Path = Path("/"), *, sees_tensorrt: bool | None = None) -> list[Finding]:
    """Look at what a Jetson needs for building and running engines; changes nothing.

    Args:
        root: what stands for `/`.
        sees_tensorrt: whether this Python finds `tensorrt`; None: asked.
    """
    jetson = read_jetson(root)
    if jetson is None:
        return [Finding("jetson", "not a Jetson")]
    if sees_tensorrt is None:
        sees_tensorrt = importlib.util.find_spec("tensorrt") is not None
    return [
        Finding("jetson", jetson.model or "a Jetson that does not tell its model"),
        _release(jetson),
        _power(jetson),
        _clocks(jetson),
        *_memory(read_memory(root)),
        *_tensorrt(jetson, sees_tensorrt=sees_tensorrt),
    ]


def _release(jetson: Jetson) -> Finding:
    if not jetson.l4t:
        return Finding("jetpack", "not told", "cat /etc/nv_tegra_release")
    found = f"{jetson.jetpack or 'unknown'}, Jetson Linux {jetson.l4t}"
    if tuple(int(part) for part in jetson.l4t.split(".")[:2]) < (36, 4):
        remedy = "flash JetPack 6.1 or later: TensorRT before 10.3 cannot build these graphs"
        return Finding("jetpack", found, remedy)
    if jetson.is_jetpack_installed:
        return Finding("jetpack", found)
    # Not a fault: an image may carry only TensorRT.
    return Finding("jetpack", f"{found}; the package nvidia-jetpack is not installed")


def _power(jetson: Jetson) -> Finding:
    if not jetson.power_mode:
        return Finding("power mode", "not told", "sudo nvpmodel -q")
    fastest = [mode for mode in jetson.power_modes if mode.startswith("MAXN")]
    if not fastest or jetson.power_mode in fastest:
        return Finding("power mode", jetson.power_mode)
    number = fastest[-1].rpartition("(")[2].rstrip(")")
    return Finding(
        "power mode",
        f"{jetson.power_mode}; this board has {', '.join(jetson.power_modes)}",
        f"sudo nvpmodel -m {number}   # if the cooling and the supply allow {fastest[-1]}",
    )


def _clocks(jetson: Jetson) -> Finding:
    if jetson.clocks_locked is None:
        return Finding("gpu clock", "not told", "sudo jetson_clocks --show")
    if jetson.clocks_locked:
        return Finding("gpu clock", "locked")
    return Finding("gpu clock", "moves with the load", "sudo jetson_clocks   # before measuring")


def _memory(memory: Memory) -> list[Finding]:
    available = memory.available_bytes
    found = f"{available / 1e9:.1f} of {memory.total_bytes / 1e9:.1f} GB free"
    remedy = "sudo systemctl isolate multi-user.target   # stops the desktop: about 1 GB"
    disk_swap_bytes = memory.swap_bytes - memory.zram_bytes
    swap = f"{disk_swap_bytes / 1e9:.1f} GB on disk, {memory.zram_bytes / 1e9:.1f} GB zram"
    return [
        Finding("memory", found, "" if available >= _MIN_MEMORY_BYTES else remedy),
        Finding(
            "swap",
            swap,
            # zram holds in memory what a build pushes out of it.
            ""
            if disk_swap_bytes >= _MIN_MEMORY_BYTES or available >= 2 * _MIN_MEMORY_BYTES
            else "sudo fallocate -l 4G /swap && sudo chmod 600 /swap && sudo mkswap /swap && "
            "sudo swapon /swap",
        ),
    ]


def _tensorrt(jetson: Jetson, *, sees_tensorrt: bool) -> list[Finding]:
    apt = "sudo apt-get install tensorrt python3-libnvinfer"
    venv = "python3 -m venv --system-site-packages .venv   # shows apt's packages to this Python"
    bindings = jetson.tensorrt_python
    return [
        Finding(
            "tensorrt by apt", jetson.tensorrt or "not installed", "" if jetson.tensorrt else apt
        ),
        Finding("its python part", bindings or "not installed", "" if bindings else apt),
        Finding(
            "this python",
            f"{'finds' if sees_tensorrt else 'does not find'} tensorrt ({sys.prefix})",
            "" if sees_tensorrt else venv if bindings else apt,
        ),
    ]
