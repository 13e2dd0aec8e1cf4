"""The verb `finish`: engines for a bundle; on a device, the last step before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevision.cli.build_file import read_setting
from edgevision.cli.summary import report
from edgevision.cli.terminal import progress_bar
from edgevision.cli.verbs import Verbs, add_engines, add_trust, verb

if TYPE_CHECKING:
    from edgevision.engines.cache import EngineCache

_SETTINGS = ("cache", "optimization_level", "workspace_bytes")


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    finish = verb(verbs, "finish", run, example="finish road.ev --target local --evaluate val/")
    finish.add_argument("bundle", type=Path, metavar="BUNDLE")
    finish.add_argument(
        "--target",
        action="append",
        required=True,
        metavar="NAME",
        help="`edgevision targets` lists them; or a .toml file; may be repeated",
    )
    finish.add_argument(
        "--evaluate", type=Path, metavar="DIR", help="labelled frames to score the engine on"
    )
    add_engines(finish)
    add_trust(finish)
    finish.add_argument("--lean", action="store_true", help="plans for the lean TensorRT runtime")
    finish.add_argument(
        "--choose",
        action="store_true",
        help="build both precisions of a bundle that holds two, measure them here side by side, "
        "and keep the faster one that passes the accuracy gate",
    )
    add_settings(finish, ", ".join(_SETTINGS))


def add_settings(sub: argparse.ArgumentParser, keys: str) -> None:
    """Let a verb take settings by key, and `--no-cache` for the one that is typed most."""
    sub.add_argument("--set", action="append", metavar="KEY=VALUE", help=keys)
    sub.add_argument(
        "--no-cache",
        dest="set",
        action="append_const",
        const="cache=false",
        help="build every engine, also those that were built before",
    )


def run(options: argparse.Namespace) -> int:
    """Build engines for a bundle, prove them and record it; on the device for a device."""
    from edgevision.engines.extend import finish

    settings: dict[str, Any] = dict(map(read_setting, options.set or ()))
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise ValueError(
            f"--set {unknown[0]}: the bundle's graph has it already; expected one of "
            f"{', '.join(_SETTINGS)}"
        )
    settings["cache"] = open_cache(settings.pop("cache", True))
    if getattr(options, "choose", False):  # the alias of `build` has none
        from edgevision.bench.gate.choice import side_by_side

        settings["measure"] = side_by_side
    with progress_bar() as progress:
        summary = finish(
            options.bundle,
            options.target,
            evaluate=options.evaluate,
            engines=options.engines,
            require_signature=options.key,
            minimum_version=options.minimum_version,
            expected_name=options.name,
            lean=options.lean,
            progress=progress,
            **settings,
        )
    # On the device that was just finished, what is pending for others is no business of its.
    return report(options, summary, on_device=bool(summary.finished))


def open_cache(setting: bool | Path) -> EngineCache | None:
    """Return the cache that a setting names: the usual one, one in a folder, or none."""
    from edgevision.engines.cache import EngineCache

    if setting is False:
        return None
    return EngineCache() if setting is True else EngineCache(setting)
