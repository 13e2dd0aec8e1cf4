"""The verb `bench`: how long frames take, and `bench compare`: whether something got slower."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevision._optional import require
from edgevision.cli.exits import INTERRUPTED, NO, OK
from edgevision.cli.terminal import print_json, progress_bar
from edgevision.cli.verbs import Verbs, add_force

if TYPE_CHECKING:
    from edgevision.bench.gate.process import Side

_STDOUT = Path("-")


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    bench = verbs.add_parser("bench", help=_bench.__doc__, description=_bench.__doc__)
    bench.set_defaults(handler=_bench)
    bench.add_argument(
        "bundles",
        nargs="+",
        metavar="BUNDLE",
        help="or: compare A B, which says whether B is slower than A; A and B are bundles, JSON "
        "files of earlier runs or, with --on, wheels, git revisions or interpreters",
    )
    bench.add_argument(
        "--json", type=Path, nargs="?", const=_STDOUT, metavar="FILE",
        help="write one JSON document to FILE, or print it",
    )  # fmt: skip
    bench.add_argument(
        "--scenario", choices=["single", "paced", "throughput", "multi"], default="single"
    )
    bench.add_argument("--fps", type=float, default=30.0, help="of the camera (paced, multi)")
    bench.add_argument("--duration", type=float, default=10.0, metavar="S", help="of each bundle")
    bench.add_argument("--deadline", type=float, metavar="MS", help="default: two periods")
    bench.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    bench.add_argument("--model", metavar="SOURCE", help="measure it in PyTorch, too; see build")
    bench.add_argument("--quick", action="store_true", help="no cold starts, no other ways")
    bench.add_argument("--harness", choices=["own", "loadgen"], default="own")
    bench.add_argument("--report", type=Path, metavar="FILE.html", help="a page with pictures")
    add_force(bench)
    compare = bench.add_argument_group("compare")
    compare.add_argument("--on", metavar="BUNDLE", help="compare two edgevisions on this bundle")
    compare.add_argument("--gate", type=_percent, default=0.05, help="slow-down to find, e.g. 5%%")
    compare.add_argument("--junit", type=Path, metavar="FILE.xml", help="for a CI's list of tests")
    compare.add_argument("--markdown", type=Path, metavar="FILE.md", help="for a CI's summary")


def _bench(options: argparse.Namespace) -> int:
    """Measure how long a bundle's frames take here, and say what is behind each number."""
    is_compare = options.bundles[0] == "compare"
    if options.report and (is_compare or options.harness == "loadgen"):
        raise ValueError("report: compare and LoadGen have no page; give --json or --markdown")
    _check_files(options)
    if is_compare:
        return _compare(options)
    if options.harness == "loadgen":
        return _loadgen(options)
    from edgevision.bench.facts import lines
    from edgevision.bench.measure import Settings, measure
    from edgevision.bench.report import write_html

    settings = Settings(
        options.scenario,
        options.fps,
        options.duration,
        options.deadline,
        options.device,
        cold_starts=0 if options.quick else 3,
        reference=not options.quick,
    )
    with progress_bar() as progress:
        found = measure(options.bundles, settings, peers=_peers(options.model), progress=progress)
    if options.report:
        write_html(found, options.report, force=options.force)
    if options.json:
        _tell(options.json, [measurement.as_json() for measurement in found])
    if options.json != _STDOUT:
        print("\n\n".join("\n".join(lines(measurement)) for measurement in found))
        if options.report:
            print(f"report: {options.report}")
    return INTERRUPTED if found[-1].is_cut else OK


def _check_files(options: argparse.Namespace) -> None:
    """Refuse, before minutes of measuring, what could not be written after them."""
    from edgevision.tasks.outputs import refuse_foreign

    files = [options.report, options.json, options.junit, options.markdown]
    refuse_foreign([file for file in files if file and file != _STDOUT], force=options.force)


def _peers(source: str | None) -> Any:
    if source is None:
        why = "give --model SOURCE to measure the same net in PyTorch"
        return {"torch, eager": why, "torch.compile": why}
    require("torch", extra="export")
    from edgevision.export.peers import torch_peers

    return torch_peers(source)


def _loadgen(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from edgevision.bench.loadgen import TITLE, drive, lines
    from edgevision.machine.environment import environment

    told = []
    for bundle in options.bundles:
        found = drive(bundle, duration_s=options.duration, device=options.device)
        told.append({"name": Path(bundle).name, "harness": TITLE, **asdict(found)})
        if options.json != _STDOUT:
            print("\n".join([f"{Path(bundle).name}: {lines(found)[0]}", *lines(found)[1:]]))
    if options.json:
        _tell(options.json, {"environment": environment(), "runs": told})
    return OK


def _compare(options: argparse.Namespace) -> int:
    if len(options.bundles) != 3:
        raise ValueError(f"compare: got {len(options.bundles) - 1} sides, expected two")
    sources = options.bundles[1:]
    if all(source.endswith(".json") for source in sources):
        return _compare_earlier(options, *sources)
    from edgevision.bench.gate import counts
    from edgevision.bench.gate.compare import compare
    from edgevision.bench.gate.verdict import as_json, as_junit, as_markdown
    from edgevision.tasks.outputs import MARK

    with ExitStack() as stack:
        first, second = (_side(source, options, stack) for source in sources)
        progress = stack.enter_context(progress_bar())
        counted = counts.count(first, second, gate=options.gate)
        found = compare(first, second, gate=options.gate, progress=progress)
    said = (found, counted, first.name, second.name)
    if options.junit:
        options.junit.write_text(as_junit(*said), "utf-8")
    if options.markdown:
        options.markdown.write_text(f"{as_markdown(*said)}\n\n<!-- {MARK} -->\n", "utf-8")
    if options.json:
        _tell(options.json, as_json(*said))
    if options.json != _STDOUT:
        print(as_markdown(*said))
    return NO if found.verdict == "slower" or counted.grown else OK


def _side(source: str, options: argparse.Namespace, stack: ExitStack) -> Side:
    from edgevision.bench.gate.sides import is_package, of_bundle, of_package

    if options.on is None:
        if is_package(source) and Path(source).exists():
            raise ValueError(f"'{source}' is no bundle: give --on BUNDLE, which both sides run")
        return of_bundle(source, device=options.device)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return of_package(source, options.on, folder, device=options.device)


def _compare_earlier(options: argparse.Namespace, first: str, second: str) -> int:
    from edgevision.bench.gate.earlier import compared, read

    rows = compared(read(Path(first)), read(Path(second)))
    if options.json:
        _tell(options.json, rows)
    if options.json != _STDOUT:
        print(f"{second} over {first}, measured at different times: no gate, and no verdict")
        for row in rows:
            print(f"  {row['name']:24} {row['what']:24} {row['ratio']:.3f}")
    return OK


def _tell(path: Path, value: dict[str, Any] | list[dict[str, Any]]) -> None:
    if path == _STDOUT:
        print_json(value)
        return
    from edgevision.tasks.outputs import MARK

    marked = [
        {"remark": MARK, **entry} for entry in (value if isinstance(value, list) else [value])
    ]
    kept = marked if isinstance(value, list) else marked[0]
    path.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", "utf-8")


def _percent(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise argparse.ArgumentTypeError(f"got '{text}', expected a percentage such as 5%")
    return float(text[:-1]) / 100
