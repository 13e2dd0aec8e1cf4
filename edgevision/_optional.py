"""Import of optional packages at first use, with the pip line in the error."""

from __future__ import annotations

import importlib
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
