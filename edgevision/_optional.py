"""Optional packages: imported at first use, with the pip line in the error; their versions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType

from edgevision.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return `module`, which the extra `extra` brings.

    ONNX Runtime is imported with its telemetry off, unless ORT_DISABLE_TELEMETRY is set.

    Raises:
        MissingDependencyError: the module cannot be imported; says how to install it.
    """
    if module.partition(".")[0] == "onnxruntime":
        # Its Linux wheel (1.32) starts a thread, and writes a device id and a database into the
        # user's cache. It reads the variable when it is imported, not later.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        found = "is not installed" if missing.split(".")[0] == module.split(".")[0] else str(error)
        raise MissingDependencyError(
            f"{module} {found}. Install it with: pip install 'edgevision[{extra}]'", name=module
        ) from error


# The distributions that bring a module: asking for all of them takes half a second.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_lean": ("tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}


def installed_version(module: str) -> str | None:
    """Return the version of the distribution that brings `module`; None if no metadata tells.

    Nothing is imported but the library that reads metadata, which takes as long as all of ours.
    """
    from importlib import metadata

    for name in _DISTRIBUTIONS.get(module, (module,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    names = _all_distributions().get(module, ())
    return metadata.version(names[0]) if names else None


@cache
def _all_distributions() -> Mapping[str, Sequence[str]]:
    """Return which distributions bring a module; once a process, for it reads every package."""
    from importlib import metadata

    return metadata.packages_distributions()
