"""The verb `check`: whether a target will take a graph, without the board."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgevision._optional import require
from edgevision.cli.exits import NO, OK
from edgevision.cli.terminal import progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_trust, parse_trust, verb


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    check = verb(
        verbs, "check", _check, example="check road.ev --target jetson-orin-nx-jp6", is_watched=True
    )
    check.add_argument("source", type=Path, help="MODEL.onnx or a bundle")
    check.add_argument("--target", required=True, metavar="NAME", help="or a target's .toml file")
    add_trust(check)


def _check(options: argparse.Namespace) -> int:
    """Say whether a target will take a graph, and if not, which node and how to mend it."""
    require("onnx", extra="export")
    from edgevision.export.preflight import preflight

    source = options.source
    if source.is_dir() or options.key or options.name or options.minimum_version:
        source = parse_trust(options).open(source, is_measured=True)
    with progress_bar() as progress:
        found = preflight(source, options.target, progress=progress)
    passed = all(checked.passed for checked in found)
    graphs = [{**asdict(checked), "passed": checked.passed} for checked in found]
    if put_json(options, {"target": options.target, "passed": passed, "graphs": graphs}):
        return OK if passed else NO
    for checked in found:
        print(f"{checked.name}: {checked.builder}")
        if checked.working_bytes is not None:
            print(f"  about {checked.working_bytes / 1e6:.0f} MB of weights and activations")
        for finding in checked.findings:
            print(f"  {finding.severity}: {finding.node}: {finding.message}")
            print(f"    -> {finding.remedy}")
    print(f"fit for '{options.target}'" if passed else f"NOT fit for '{options.target}'")
    return OK if passed else NO
