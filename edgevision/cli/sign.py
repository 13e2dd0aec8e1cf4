"""The verbs `keygen` and `sign`: who made a bundle; `verify --key` checks it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgevision.cli.exits import OK
from edgevision.cli.verbs import Verbs, verb
from edgevision.terminal import print_json


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    keygen = verb(verbs, "keygen", _keygen)
    keygen.add_argument("name", type=Path, help="writes NAME.key and NAME.pub")
    sign = verb(verbs, "sign", _sign)
    sign.add_argument("bundle", type=Path)
    sign.add_argument("--key", type=Path, required=True, metavar="NAME.key")
    sign.add_argument(
        "--version", type=int, required=True, metavar="N", help="grows with each release"
    )


def _keygen(options: argparse.Namespace) -> int:
    """Make a key pair to sign bundles with."""
    from edgevision.signature import keygen

    private, public = keygen(options.name)
    if options.json:
        print_json({"private": str(private), "public": str(public)})
    else:
        print(f"{private}: keep it secret, where bundles are signed")
        print(f"{public}: give it to every device, as require_signature= or --key")
    return OK


def _sign(options: argparse.Namespace) -> int:
    """Sign a bundle, so that devices can refuse every other one."""
    from edgevision.signature import sign

    signature = sign(options.bundle, options.key, version=options.version)
    if options.json:
        print_json({"bundle": str(options.bundle), **asdict(signature)})
    else:
        print(f"{options.bundle}: version {signature.version}, signed by key {signature.key}")
    return OK
