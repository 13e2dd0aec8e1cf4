"""The command line: verbs, their arguments, and what they print."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgevision.cli import bench
from edgevision.cli.exits import INTERRUPTED, KNOWN, NO, OK, PENDING, READER_GONE, exit_code
from edgevision.errors import BuildError
from edgevision.terminal import print_json, progress_bar

if TYPE_CHECKING:
    from edgevision.compile import BuildSummary
    from edgevision.manifest import Manifest
    from edgevision.runtime.model import Model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    # A person wants the message, not the line of ours that gave it.
    warnings.formatwarning = lambda message, *_: f"edgevision: warning: {message}\n"
    # As `python -m` does: factories are looked up where the user stands.
    sys.path.insert(0, os.getcwd())
    try:
        handler: Callable[[argparse.Namespace], int] = options.handler
        return handler(options)
    except BrokenPipeError:
        # Whoever read us has seen enough, as in `edgevision inspect B.ev | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except KNOWN as error:
        if options.debug:
            raise
        code = _fail(error, as_json=getattr(options, "json", False))
        if code == INTERRUPTED:
            # torch and ONNX Runtime can crash in their own teardown when they were interrupted
            # while loading; everything of ours is closed by now.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code


def _fail(error: BaseException, *, as_json: bool) -> int:
    code = exit_code(error)
    message = (
        "interrupted; what was not finished is as it was before"
        if code == INTERRUPTED
        else str(error)
    )
    print(f"edgevision: {message}", file=sys.stderr)
    if isinstance(error, BuildError) and error.log:
        print("\n".join(error.log.strip().splitlines()[-20:]), file=sys.stderr)
    if as_json:
        kind = type(error).__name__
        print(json.dumps({"error": {"type": kind, "message": message}, "exit_code": code}))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgevision",
        description="Take trained PyTorch vision models to embedded NVIDIA GPUs.",
        epilog="Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 something is missing here, "
        "4 pending on the target.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, handler: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=handler.__doc__, description=handler.__doc__)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        sub.set_defaults(handler=handler)
        return sub

    demo = verb("demo", _demo)
    demo.add_argument("--out", type=Path, default=Path("edgevision-demo"), help="folder to write")

    build = verb("build", _build)
    build.add_argument("source", help="a shipped net, package.module:factory, FILE.onnx, or BUNDLE")
    build.add_argument("--out", type=Path, help="the bundle to write (not for a BUNDLE source)")
    build.add_argument("--weights", type=Path, help="safetensors or tensor-only checkpoint")
    build.add_argument("--task", choices=["semantic", "instance", "tensors"])
    build.add_argument("--size", type=_size, metavar="HxW", help="the net's input size")
    build.add_argument("--classes", type=Path, help="file: a class name a line, maybe #rrggbb")
    build.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32")
    build.add_argument("--calibration", type=Path, metavar="DIR", help="typical frames, for INT8")
    build.add_argument(
        "--evaluate",
        type=Path,
        metavar="DIR",
        help="images/ with labels/, instances.json or captions.json to score on",
    )
    build.add_argument("--target", action="append", metavar="NAME", help="may be repeated")

    verify = verb("verify", _verify)
    verify.add_argument("bundle", type=Path)
    verify.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    bench.add_to(verbs)

    inspect = verb("inspect", _inspect)
    inspect.add_argument("bundle", type=Path)

    run = verb("run", _run)
    run.add_argument("bundle", type=Path)
    run.add_argument("source", type=Path, nargs="?", help="image, folder of images, or video")
    run.add_argument(
        "--out", type=Path, help="folder of overlays; of a generator a picture, .gif or .mp4"
    )
    run.add_argument("--seed", type=int, help="first seed of a generator's pictures (default 0)")
    run.add_argument("--count", type=int, help="how many pictures (default 64)")
    run.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    verb("targets", _targets)
    verb("doctor", _doctor)
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match or 0 in (height_width := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"got '{text}', expected HEIGHTxWIDTH such as 360x480")
    return height_width


def _demo(options: argparse.Namespace) -> int:
    """Segment street photos with an INT8 net on this CPU, and write a report."""
    from edgevision.demo import run_demo

    with progress_bar() as progress:
        report = run_demo(options.out, progress=progress)
    if options.json:
        print_json({"report": str(report.page), "pictures": [str(p) for p in report.pictures]})
        return OK
    _print_scores(report.summary)
    print(f"\nPictures and a one-page report: {report.page}")
    return OK


def _build(options: argparse.Namespace) -> int:
    """Turn a trained model into a bundle, or build more targets of a bundle."""
    from edgevision.compile import add_targets, build

    path = Path(options.source)
    if path.is_dir():
        if not options.target:
            raise ValueError("which target shall be built? Give --target NAME")
        with progress_bar() as progress:
            summary = add_targets(path, options.target, progress=progress)
    else:
        if options.out is None:
            raise ValueError("where shall the bundle go? Give --out NAME.ev")
        with progress_bar() as progress:
            summary = build(
                options.source,
                options.out,
                task=options.task,
                weights=options.weights,
                size=options.size,
                classes=_class_file(options.classes),
                precision=options.precision,
                calibration=options.calibration,
                evaluate=options.evaluate,
                targets=options.target or ["host-cpu"],
                progress=progress,
            )
    artifacts = [a for stage in summary.bundle.manifest.stages for a in stage.artifacts]
    pending = [a for a in artifacts if a.is_pending]
    if options.json:
        print_json(_summary_json(summary))
    else:
        _print_scores(summary)
        print(f"{summary.bundle.root}:")
        for artifact in artifacts:
            took = summary.seconds.get(artifact.target)
            state = f"pending: {artifact.reason}" if artifact.is_pending else "built"
            print(f"  {artifact.target:18} {state}" + (f" in {took:.1f} s" if took else ""))
        for artifact in pending:
            print(f"Finish '{artifact.target}' on the target: {artifact.command}")
    return PENDING if pending else OK


def _class_file(path: Path | None) -> list[str | tuple[str, str]] | None:
    if path is None:
        return None
    from edgevision.export.source import read_classes

    return read_classes(path)


def _summary_json(summary: BuildSummary) -> dict[str, object]:
    manifest = summary.bundle.manifest
    return {
        "bundle": str(summary.bundle.root),
        "precision": manifest.precision,
        "accuracy": [
            {k: v for k, v in asdict(score).items() if not isinstance(v, tuple)}
            for score in summary.scores
        ],
        "parity": [
            {"name": r.name, "mismatch_share": r.mismatch_share, "passed": r.passed}
            for r in summary.parity
        ],
        "artifacts": _artifacts_json(manifest, summary.seconds),
        "provenance": dict(manifest.provenance),
    }


def _artifacts_json(manifest: Manifest, seconds: object = None) -> list[dict[str, object]]:
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
            "command": artifact.command,
            "seconds": took.get(artifact.target),
        }
        for stage in manifest.stages
        for artifact in stage.artifacts
    ]


def _print_scores(summary: BuildSummary) -> None:
    if not summary.scores:
        return
    names = list(summary.scores[0].figures())
    print("  ".join([f"{'form':16}", *names]))
    for score in summary.scores:
        values = ("-" if v is None else f"{v:.4f}" for v in score.figures().values())
        cells = (f"{value:>{len(name)}}" for name, value in zip(names, values, strict=True))
        print("  ".join([f"{score.form:16}", *cells]))
    classes = summary.bundle.manifest.settings.get("classes")
    if not summary.scores[0].per_class() or not isinstance(classes, list):
        return
    print("  ".join([f"{'class':16}", *(f"{score.form:>9}" for score in summary.scores)]))
    for label, *row in zip(classes, *(s.per_class() for s in summary.scores), strict=True):
        name = label["name"] if isinstance(label, dict) else "?"
        print("  ".join([f"{name:16}", *(f"{value:9.4f}" for value in row)]))


def _verify(options: argparse.Namespace) -> int:
    """Check every hash of a bundle, and its golden vectors on this machine."""
    from edgevision.bundle import Bundle
    from edgevision.runtime.verify import verify

    bundle = Bundle.open(options.bundle)
    reports = verify(bundle, device=options.device)
    passed = all(report.passed for report in reports)
    if options.json:
        found = [
            {"name": r.name, "mismatch_share": r.mismatch_share, "passed": r.passed}
            for r in reports
        ]
        print_json({"bundle": str(options.bundle), "passed": passed, "parity": found})
    else:
        print(f"{len(bundle.manifest.files)} files match their hashes")
        for report in reports:
            print(report)
        print("verified" if passed else "NOT verified: do not use this bundle here")
    return OK if passed else NO


def _inspect(options: argparse.Namespace) -> int:
    """Show what a bundle holds."""
    from edgevision.bundle import Bundle

    manifest = Bundle.open(options.bundle).manifest
    if options.json:
        print_json(
            {
                **json.loads(manifest.to_json()),
                "artifacts": _artifacts_json(manifest),
            }
        )
        return OK
    print(f"{manifest.name}: task {manifest.task}, {manifest.precision}")
    for stage in manifest.stages:
        print(f"stage {stage.name}")
        for label, specs in (("in", stage.inputs), ("out", stage.outputs)):
            for spec in specs:
                print(f"  {label:4} {spec}")
    for artifact in _artifacts_json(manifest):
        detail = artifact["command"] if artifact["state"] == "pending" else artifact["path"]
        print(f"  {artifact['target']:18} {artifact['state']:8} {detail}")
    total = sum(entry.size_bytes for entry in manifest.files)
    print(f"{len(manifest.files)} files, {total / 1e6:.1f} MB")
    for key, value in manifest.provenance.items():
        print(f"  {key}: {value}")
    return OK


def _run(options: argparse.Namespace) -> int:
    """Run a bundle on images or a video, or a generator on seeds, and write pictures."""
    from edgevision.runtime.batch import run_files
    from edgevision.runtime.load import load

    with load(options.bundle, device=options.device) as model, progress_bar() as progress:
        if model.manifest.task == "generated":
            return _make(model, options)
        if options.source is None or options.seed is not None or options.count is not None:
            raise ValueError(
                f"'{model.manifest.name}' takes frames: give an image, a folder of images or a "
                "video, and neither --seed nor --count"
            )
        done = run_files(model, options.source, options.out, progress=progress)
    if options.json:
        print_json(
            {
                "explain": model.explain(),
                "frames": [
                    {"name": f.name, "resized_from": f.resized_from, **f.answer}
                    for f in done.frames
                ],
                "median_ms": done.median_ms,
                "out": str(options.out) if options.out else None,
            }
        )
        return OK
    print(model.explain())
    for frame in done.frames[:20]:
        print(f"  {frame.name}: {frame.text}")
    if len(done.frames) > 20:
        print(f"  ... and {len(done.frames) - 20} more")
    if sizes := {f.resized_from for f in done.frames if f.resized_from}:
        print(f"resized to the model's frame from {', '.join(f'{h}x{w}' for h, w in sizes)}")
    print(f"{len(done.frames)} frames, median {done.median_ms:.1f} ms a frame")
    if options.out:
        print(f"pictures: {options.out}")
    return OK


def _make(model: Model, options: argparse.Namespace) -> int:
    from edgevision.runtime.making import make_pictures

    if options.source is not None:
        raise ValueError(
            f"'{model.manifest.name}' makes pictures of seeds and takes no '{options.source}': "
            "give --seed and --count"
        )
    seed = 0 if options.seed is None else options.seed
    made = make_pictures(model, seed, 64 if options.count is None else options.count, options.out)
    if options.json:
        print_json(
            {
                "explain": model.explain(),
                "count": made.count,
                "batch": made.batch,
                "images_per_s": made.images_per_s,
                "out": str(options.out) if options.out else None,
            }
        )
        return OK
    print(model.explain())
    print(
        f"{made.count} pictures of the seeds from {seed} on, {made.images_per_s:.0f} a second in "
        f"batches of {made.batch}"
    )
    if options.out:
        print(f"pictures: {options.out}")
    return OK


def _targets(options: argparse.Namespace) -> int:
    """List the targets, and what this machine can do for each."""
    from edgevision.engines.builder import unavailable
    from edgevision.targets import known_targets

    rows = [(target, unavailable(target)) for target in known_targets()]
    if options.json:
        print_json(
            [
                {
                    "name": target.name,
                    "title": target.title,
                    "flavour": target.flavour.value,
                    "versions": target.versions,
                    "sm": target.sm,
                    "builds_here": reason is None,
                    "reason": reason,
                    "notes": target.notes,
                }
                for target, reason in rows
            ]
        )
        return OK
    for target, reason in rows:
        print(f"{target.name:18} {target.title}")
        print(f"{'':18} {'builds here' if reason is None else f'pending: {reason}'}")
    return OK


def _doctor(options: argparse.Namespace) -> int:
    """Say what this machine has and what it lacks."""
    from edgevision.doctor import examine

    findings = examine()
    if options.json:
        print_json([{"what": f.what, "found": f.found, "remedy": f.remedy} for f in findings])
    else:
        for finding in findings:
            print(f"{finding.what:20} {finding.found}")
            if finding.remedy:
                print(f"{'':20} -> {finding.remedy}")
    return OK
