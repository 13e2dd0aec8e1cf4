"""The verbs `inspect` and `verify`: what a bundle holds, and whether it is valid here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgevision.bundle.printable import printable
from edgevision.bundle.record import finish_command
from edgevision.cli.exits import NO, OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, add_engines, add_trust, parse_trust, verb

if TYPE_CHECKING:
    from edgevision.bundle.directory import Bundle
    from edgevision.bundle.manifest import Manifest
    from edgevision.bundle.parity import ParityReport


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    verify = verb(
        verbs, "verify", _verify, example="verify road.ev --key ours.pub", is_watched=True
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    verify.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    verify.add_argument("--files-only", action="store_true", help="hashes, signature; run nothing")
    add_engines(verify)
    add_trust(verify)
    inspect = verb(verbs, "inspect", _inspect, example="inspect road.ev --json")
    inspect.add_argument("bundle", type=Path, metavar="BUNDLE")
    inspect.add_argument("--layers", action="store_true", help="a line for each INT8 layer")


def _verify(options: argparse.Namespace) -> int:
    """Check every hash of a bundle, and its golden vectors on this machine."""
    from edgevision.cli.stranger import verify_stranger
    from edgevision.runtime.verify import verify

    run: Callable[..., list[ParityReport]] = verify if options.key else verify_stranger
    bundle = parse_trust(options).open(options.bundle)
    signed = _signed(bundle, is_checked=bool(options.key))
    reports = []
    if not options.files_only:
        reports = run(bundle, device=options.device, engines=options.engines)
    passed = all(report.passed for report in reports)
    found = [
        {"name": r.name, "mismatch_share": r.mismatch_share, "passed": r.passed} for r in reports
    ]
    document = {"bundle": str(options.bundle), "passed": passed, "signature": signed,
                "parity": found}  # fmt: skip
    if not put_json(options, document):
        print(f"{len(bundle.manifest.files)} files match their hashes; {signed}")
        for report in reports:
            print(report)
        if options.files_only:
            print("no engine was run: without --files-only the golden vectors are checked, too")
        else:
            print("verified" if passed else "NOT verified: do not use this bundle here")
    return OK if passed else NO


def _signed(bundle: Bundle, *, is_checked: bool) -> str:
    from edgevision.bundle.signature import Signature

    if bundle.signature is None:
        return "not signed"
    found = Signature.from_bytes(bundle.signature)
    until = f" until {found.expires}" if found.expires else ""
    if is_checked:
        return f"version {found.version}{until}, signed by key {found.key}"
    return f"version {found.version}{until} by key {found.key}, NOT CHECKED: give --key NAME.pub"


def _inspect(options: argparse.Namespace) -> int:
    """Show what a bundle holds."""
    from edgevision.bundle.directory import Bundle
    from edgevision.bundle.layer_report import read_layers
    from edgevision.cli.layers import layer_lines

    bundle = Bundle.open(options.bundle)
    manifest = bundle.manifest
    layers = read_layers(bundle)
    document = {
        **json.loads(manifest.to_json()),
        "artifacts": artifacts_json(bundle),
        "layers": [asdict(layer) for layer in layers],
    }
    if put_json(options, document):
        return OK
    print(f"{manifest.name}: task {manifest.task}, {manifest.precision}")
    for line in chain(manifest):
        print(f"  {line}")
    for stage in manifest.stages:
        print(f"stage {stage.name}")
        for label, specs in (("in", stage.inputs), ("out", stage.outputs)):
            for spec in specs:
                print(f"  {label:4} {spec}")
    for artifact in artifacts_json(bundle):
        detail = artifact["command"] if artifact["state"] == "pending" else artifact["path"]
        print(f"  {artifact['target']:18} {artifact['state']:8} {detail}")
    for line in layer_lines(layers, is_whole=options.layers):
        print(f"  {line}")
    total = sum(entry.size_bytes for entry in manifest.files)
    print(f"{len(manifest.files)} files, {total / 1e6:.1f} MB")
    for key, value in manifest.provenance.items():
        print(f"  {key}: {value}")
    return OK


def chain(manifest: Manifest) -> list[str]:
    """Return the way from the sensor to the answer in one line each; nothing without a camera."""
    from edgevision.errors import BundleFormatError
    from edgevision.tasks.camera import CameraFrame
    from edgevision.tasks.cameras import camera_count, one_camera_stage
    from edgevision.tasks.decoders import state_names, without_state

    settings, stage = manifest.settings, manifest.stages[0]
    try:
        state, count = state_names(settings, stage), camera_count(settings)
        specs = {spec.name: spec for spec in stage.inputs}
        stage = without_state(stage, state)
        if count is not None:
            stage = one_camera_stage(stage, count)
        camera = CameraFrame.from_manifest(stage.inputs[0], settings, manifest.task)
    except BundleFormatError:
        return []
    height, width = camera.size
    given = settings.get("camera")
    fit = given if isinstance(given, dict) else {}
    lines = [f"sensor   {camera.layout}: {camera.layout.arithmetic()}"]
    if count is not None:
        least, most = count
        lines.append(f"cameras  {f'{least} to {most}' if least != most else most} in one call")
    if camera.region is not None:
        top, left, rows, columns = camera.region
        lines.append(
            f"region   rows {top} to {top + rows} of {height}, columns {left} to {left + columns} "
            f"of {width}"
        )
    if "fit" in fit:
        bars = f", bars of {fit.get('pad_value')} around {fit['inner']}" if "inner" in fit else ""
        lines.append(f"fit      {printable(fit['fit'])}{printable(bars)}")
    lines.append(f"net      RGB of {printable(settings.get('size'))}")
    lines += [f"state    {specs[name]}, from frame to frame on the device" for name in state]
    each = " of each camera" if count is not None else ""
    if len(manifest.stages) > 1:
        return [*lines, f"answer   {manifest.task}, stage by stage"]
    return [*lines, *(f"answer   {spec}{each}" for spec in stage.outputs)]


def artifacts_json(bundle: Bundle, seconds: object = None) -> list[dict[str, object]]:
    """Return what there is for each target, and how long it took to build."""
    manifest = bundle.manifest
    sizes = {entry.path: entry for entry in manifest.files}
    took = seconds if isinstance(seconds, dict) else {}
    return [
        {
            "stage": stage.name,
            "target": artifact.target,
            "state": "pending" if artifact.is_pending else "built",
            "path": artifact.path,
            "size_bytes": sizes[artifact.path].size_bytes if artifact.path else None,
            "sha256": sizes[artifact.path].sha256 if artifact.path else None,
            "version": artifact.version,
            "reason": artifact.reason,
            "command": finish_command(bundle.root.name, artifact.target)
            if artifact.is_pending
            else "",
            "seconds": took.get(artifact.target),
        }
        for stage in manifest.stages
        for artifact in stage.artifacts
    ]
