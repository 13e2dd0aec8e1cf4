"""Optional packages: imported at first use, with the pip line in the error; their versions."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

from edgevision.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return `module`, which the extra `extra` brings.

    Raises:
        MissingDependencyError: the module cannot be imported; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        found = "is not installed" if missing.split(".")[0] == module.split(".")[0] else str(error)
        raise MissingDependencyError(
            f"{module} {found}. Install it with: pip install 'edgevision[{extra}]'", name=module
        ) from error


def installed_version(module: str) -> str | None:
    """Return the version of the distribution that brings `module`; None if no metadata tells.

    Nothing is imported. The distribution's name varies: tensorrt, tensorrt-cu12, tensorrt-cu13.
    """
    names = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(names[0]) if names else None
