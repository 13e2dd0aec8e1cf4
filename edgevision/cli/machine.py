"""The verbs `targets` and `doctor`: what can be built for, and what this machine lacks."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgevision.cli.exits import OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, verb


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    verb(verbs, "targets", _targets, example="targets")
    verb(verbs, "doctor", _doctor, example="doctor --json")


def _targets(options: argparse.Namespace) -> int:
    """List the targets, and what this machine can do for each."""
    from edgevision.bundle.targets import known_targets
    from edgevision.engines.registry import unavailable

    rows = [(target, unavailable(target)) for target in known_targets()]
    document = [
        {
            **asdict(target),
            "flavour": target.flavour.name,
            "no_dla": target.no_dla,
            "builds_here": reason is None,
            "reason": reason,
        }
        for target, reason in rows
    ]
    if put_json(options, document):
        return OK
    for target, reason in rows:
        versions = "" if target.versions is None else f"; {' to '.join(target.versions)}"
        print(f"{target.name:21} {target.title}{versions}")
        print(f"{'':21} {'builds here' if reason is None else f'pending: {reason}'}")
    return OK


def _doctor(options: argparse.Namespace) -> int:
    """Say what this machine has and what it lacks."""
    from edgevision.cli.doctor import examine

    findings = examine()
    document = [{"what": f.what, "found": f.found, "remedy": f.remedy} for f in findings]
    if not put_json(options, document):
        for finding in findings:
            print(f"{finding.what:20} {finding.found}")
            if finding.remedy:
                print(f"{'':20} -> {finding.remedy}")
    return OK
