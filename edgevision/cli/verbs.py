"""How a verb is added to the command line; each verb has a file of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_engines(verb: argparse._ActionsContainer) -> None:
    """Let a verb say where the engines that were finished on this machine lie."""
    verb.add_argument("--engines", type=Path, metavar="DIR", help="default: BUNDLE.engines/")


def add_force(verb: argparse._ActionsContainer) -> None:
    """Let a verb that writes files replace those that edgevision did not make."""
    verb.add_argument(
        "--force", action="store_true", help="replace files that edgevision did not make"
    )


def verb(
    verbs: Verbs, name: str, handler: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add the verb `name`; what its handler says of itself is its help."""
    sub = verbs.add_parser(name, help=handler.__doc__, description=handler.__doc__)
    sub.add_argument("--json", action="store_true", help="print one JSON document")
    sub.set_defaults(handler=handler)
    return sub
