"""The verb `triton`: a bundle as a model repository of Triton Inference Server."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevision.cli.exits import OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, add_trust, parse_trust, verb


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    triton = verb(verbs, "triton", _triton, example="triton road.ev --out models/")
    triton.add_argument("bundle", type=Path, metavar="BUNDLE")
    triton.add_argument("--out", type=Path, required=True, metavar="REPO")
    triton.add_argument("--target", metavar="NAME", help="default: the first that Triton runs")
    triton.add_argument("--instances", type=int, default=1, metavar="N", help="executions at once")
    add_trust(triton)


def _triton(options: argparse.Namespace) -> int:
    """Write a bundle as a model repository of Triton Inference Server; no server is asked."""
    from edgevision.bundle.triton import served_models, write_models

    bundle = parse_trust(options).open(options.bundle)
    models = served_models(bundle, target=options.target, instances=options.instances)
    folders = write_models(models, options.out)
    document = {
        "models": [
            {"name": model.name, "target": model.target, "folder": str(folder)}
            for model, folder in zip(models, folders, strict=True)
        ],
        "served": False,
    }
    if put_json(options, document):
        return OK
    for model, folder in zip(models, folders, strict=True):
        print(f"{folder}: runs '{model.target}'")
    print(f"no server has loaded it: point tritonserver at the repository {options.out}")
    return OK
