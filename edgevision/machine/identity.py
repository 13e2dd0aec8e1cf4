"""What an engine is bound to: the GPU and its driver, or the CPU; and which machine it was."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import platform
from pathlib import Path

from edgevision.bundle.flavours import Flavour
from edgevision.machine.gpu import compute_capability
from edgevision.machine.jetson import board_model

_NAME_BYTES = 128
# x86: VNNI and AMX; Arm: the dot product and the matrix product.
_INT8_INSTRUCTIONS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "svei8mm"}


def processor_name(flavour: Flavour) -> str:
    """Return what engines of a flavour that are built here fit: "NVIDIA L4, SM 8.9, CUDA 13.0".

    Machines of one name may take each other's builds from a cache, and prove them for themselves.
    """
    return gpu_name() if flavour.on_gpu else cpu_name()


def machine_name(flavour: Flavour) -> str:
    """Return what a proof holds for: the processor in this board with this installed system."""
    return ", ".join(filter(None, (processor_name(flavour), board_model(), _machine_id())))


def _machine_id() -> str:
    """Return a name for this installed system; "" where it has none, as many containers.

    Hashed: machine-id(5) asks that it be shown to nobody as it is.
    """
    try:
        number = Path("/etc/machine-id").read_text(errors="replace").strip()
    except OSError:
        return ""
    if number in ("", "uninitialized"):
        return ""
    return f"machine {hashlib.sha256(f'edgevision {number}'.encode()).hexdigest()[:16]}"


@functools.cache
def cpu_name() -> str:
    """Return this machine's processor and what it can do, as far as an optimised model depends."""
    model, flags = _cpu()
    wide = [f for f in flags if f.startswith(("avx", "amx", "asimd", "sve"))]
    return f"{model}, {platform.machine()}, {' '.join(sorted(wide)) or 'no vector flags told'}"


@functools.cache
def int8_dot_saturates() -> bool:
    """Whether sums of 8-bit products saturate silently on this CPU: x86 without VNNI or AMX.

    ONNX Runtime, "Quantize ONNX models": U8S8 on AVX2 and AVX512 adds two products in 16 bits.
    """
    return platform.machine() in ("x86_64", "AMD64") and not int8_instructions()


def int8_instructions() -> tuple[str, ...]:
    """Return what this CPU has for sums of 8-bit products, as the kernel spells it."""
    return tuple(sorted(set(_cpu()[1]) & _INT8_INSTRUCTIONS))


def _cpu() -> tuple[str, list[str]]:
    """Return the processor's name and its flags, none where the kernel does not tell."""
    model, flags = platform.machine(), ""  # not platform.processor(), which starts a process
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = value
    return model, flags.split()


@functools.cache
def gpu_name() -> str:
    """Return the first GPU's name, compute capability and driver; "no GPU" without one."""
    capability = compute_capability()
    if capability is None:
        return "no GPU"
    driver = ctypes.CDLL("libcuda.so.1")
    name, version = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_int()
    driver.cuDeviceGetName(name, _NAME_BYTES, 0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    payload = name.value.decode(errors="replace")
    return f"{payload}, SM {capability}, CUDA {version.value // 1000}.{version.value % 1000 // 10}"
