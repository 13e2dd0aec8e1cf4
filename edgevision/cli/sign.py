"""The verbs `keygen` and `sign`: who made a bundle; `verify --key` checks it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgevision.cli.exits import OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, verb


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    keygen = verb(verbs, "keygen", _keygen, example="keygen ours")
    keygen.add_argument("name", type=Path, help="writes NAME.key and NAME.pub")
    sign = verb(verbs, "sign", _sign, example="sign road.ev --key ours.key --version 7")
    sign.add_argument("bundle", type=Path, metavar="BUNDLE")
    sign.add_argument("--key", type=Path, required=True, metavar="NAME.key")
    sign.add_argument(
        "--version", type=int, required=True, metavar="N", help="grows with each release"
    )
    sign.add_argument(
        "--expires", default="", metavar="YYYY-MM-DD", help="the last day on which devices take it"
    )


def _keygen(options: argparse.Namespace) -> int:
    """Make a key pair to sign bundles with."""
    from edgevision.bundle.signature import keygen

    private, public = keygen(options.name)
    if not put_json(options, {"private": str(private), "public": str(public)}):
        print(f"{private}: keep it secret, where bundles are signed")
        print(f"{public}: give it to every device, as require_signature= or --key")
    return OK


def _sign(options: argparse.Namespace) -> int:
    """Sign a bundle, so that devices can refuse every other one."""
    from edgevision.bundle.signature import sign

    signature = sign(options.bundle, options.key, version=options.version, expires=options.expires)
    if not put_json(options, {"bundle": str(options.bundle), **asdict(signature)}):
        print(f"{options.bundle}: version {signature.version}, signed by key {signature.key}")
    return OK
