"""Whether this machine has an NVIDIA GPU, asked of the driver itself, with no CUDA package."""

from __future__ import annotations

import ctypes
import functools

# CUdevice_attribute of cuda.h.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@functools.cache
def no_gpu_reason() -> str:
    """Return why there is no GPU that can be used; "" if there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: libcuda.so.1 is not found"
    for name, arguments in (("cuInit", (0,)), ("cuDeviceGet", (ctypes.byref(ctypes.c_int()), 0))):
        if code := getattr(driver, name)(*arguments):
            return f"the NVIDIA driver gives no GPU: {name} failed with CUresult {code}"
    return ""


@functools.cache
def compute_capability() -> str | None:
    """Return the first GPU's compute capability such as "8.7"; None without GPU or driver."""
    if no_gpu_reason():
        return None
    driver = ctypes.CDLL("libcuda.so.1")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    return None if failed else f"{major.value}.{minor.value}"
