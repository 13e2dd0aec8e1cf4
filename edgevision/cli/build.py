"""The verbs `build` and `demo`: a trained model becomes a bundle."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgevision.cli.exits import OK, PENDING
from edgevision.cli.inspect import artifacts_json
from edgevision.cli.verbs import Verbs, add_engines, verb
from edgevision.targets import build_command
from edgevision.terminal import print_json, progress_bar

if TYPE_CHECKING:
    from edgevision.compile import BuildSummary
    from edgevision.finish import Finish


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    demo = verb(verbs, "demo", _demo)
    demo.add_argument("--out", type=Path, default=Path("edgevision-demo"), help="folder to write")
    build = verb(verbs, "build", _build)
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
    build.add_argument(
        "--target", action="append", metavar="NAME", help="or a .toml file; may be repeated"
    )
    build.add_argument("--no-cache", action="store_true", help="build engines anew")
    device = build.add_argument_group("on the device, of a BUNDLE")
    add_engines(device)
    device.add_argument("--lean", action="store_true", help="plans for the lean TensorRT runtime")


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
    from edgevision.engines.cache import EngineCache

    path = Path(options.source)
    cache = None if options.no_cache else EngineCache()
    if path.is_dir():
        if not options.target:
            raise ValueError("which target shall be built? Give --target NAME")
        with progress_bar() as progress:
            summary = add_targets(
                path,
                options.target,
                evaluate=options.evaluate,
                engines=options.engines,
                lean=options.lean,
                cache=cache,
                progress=progress,
            )
    else:
        if options.out is None:
            raise ValueError("where shall the bundle go? Give --out NAME.ev")
        if options.engines or options.lean:
            raise ValueError("--engines and --lean are for a BUNDLE, on the device that runs it")
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
                cache=cache,
                progress=progress,
            )
    artifacts = [a for stage in summary.bundle.manifest.stages for a in stage.artifacts]
    # On the device that was just finished, what is pending for others is no business of its.
    on_device = path.is_dir() and summary.finished
    pending = [
        a for a in artifacts if a.is_pending and a.target not in summary.finished and not on_device
    ]
    if options.json:
        print_json(_summary_json(summary))
    else:
        _print_scores(summary)
        print(f"{summary.bundle.root}:")
        for artifact in artifacts:
            took = summary.seconds.get(artifact.target)
            state = f"pending: {artifact.reason}" if artifact.is_pending else "built"
            if artifact.target in summary.cached:
                state = "from the cache"
            if artifact.target in summary.finished:
                continue
            print(f"  {artifact.target:21} {state}" + (f" in {took:.1f} s" if took else ""))
        for name, done in summary.finished.items():
            print("\n".join(_finished(name, done)))
        for artifact in pending:
            command = build_command(summary.bundle.root.name, artifact.target)
            print(f"Finish '{artifact.target}' on the target: {command}")
    return PENDING if pending else OK


def _class_file(path: Path | None) -> list[str | tuple[str, str]] | None:
    if path is None:
        return None
    from edgevision.export.source import read_classes

    return read_classes(path)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match or 0 in (height_width := (int(match[1]), int(match[2]))):
        raise argparse.ArgumentTypeError(f"got '{text}', expected HEIGHTxWIDTH such as 360x480")
    return height_width


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
        "artifacts": [
            {**artifact, "cached": artifact["target"] in summary.cached}
            for artifact in artifacts_json(summary.bundle, summary.seconds)
        ],
        "finished": {
            name: {
                "folder": str(done.folder),
                "record": json.loads(done.record.to_json()),
                "seconds": dict(done.seconds),
                "cached": list(done.cached),
            }
            for name, done in summary.finished.items()
        },
        "provenance": dict(manifest.provenance),
    }


def _finished(name: str, done: Finish) -> list[str]:
    record = done.record
    took = sum(done.seconds.values())
    how = f"finished in {took:.1f} s" if done.seconds else "was finished before, and is sound"
    lines = [f"  {name:21} {how}, proven on {record.machine}", f"{'':23} {done.folder}"]
    for stage in record.stages:
        layers = ", ".join(f"{n} in {kind}" for kind, n in sorted((stage.layers or {}).items()))
        lines.append(
            f"{'':23} {stage.file}: {stage.size_bytes / 1e6:.1f} MB; "
            f"layers: {layers or 'not told by this builder'}"
        )
    lines += [f"{'':23} {figure} {value:.4f}" for figure, value in record.score.items()]
    return lines


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
