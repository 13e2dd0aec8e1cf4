"""The verbs `bench`: how long frames take, and `bench compare`: whether something got slower."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevision._optional import require
from edgevision.cli.exits import INTERRUPTED, NO, OK
from edgevision.cli.terminal import progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_force, add_trust, parse_trust, verb

if TYPE_CHECKING:
    from edgevision.bench.gate.process import Side


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    bench = verb(
        verbs, "bench", _bench,
        example="bench road.ev --scenario paced --fps 30 --report page.html\n"
        "see also: edgevision bench compare --help",
    )  # fmt: skip
    bench.add_argument(
        "bundles", nargs="+", metavar="BUNDLE", help="one called `compare` is ./compare"
    )
    bench.add_argument(
        "--scenario", choices=["single", "paced", "throughput", "multi"], default="single"
    )
    bench.add_argument("--fps", type=float, default=30.0, help="of the camera (paced, multi)")
    bench.add_argument("--duration", type=float, default=10.0, metavar="S", help="of each bundle")
    bench.add_argument("--deadline", type=float, metavar="MS", help="default: two periods")
    _add_device(bench)
    bench.add_argument("--model", metavar="SOURCE", help="measure it in PyTorch, too; see build")
    bench.add_argument("--quick", action="store_true", help="no cold starts, no other ways")
    bench.add_argument("--harness", choices=["own", "loadgen"], default="own")
    bench.add_argument("--report", type=Path, metavar="FILE.html", help="a page with pictures")
    add_force(bench)
    compare = verb(
        verbs, "bench compare", _compare,
        example="bench compare last_release.ev road.ev --gate 5% --evaluate data/val",
    )  # fmt: skip
    compare.add_argument(
        "before",
        metavar="A",
        help="a bundle, the JSON file of an earlier `bench`, or with --on a wheel, git revision or "
        "interpreter",
    )
    compare.add_argument("after", metavar="B", help="the same kind of thing; is it slower than A?")
    _add_device(compare)
    add_force(compare)
    compare.add_argument("--on", metavar="BUNDLE", help="compare two edgevisions on this bundle")
    compare.add_argument("--gate", type=percent, default=0.05, help="slow-down to find, e.g. 5%%")
    compare.add_argument(
        "--evaluate", metavar="DIR", help="hold B's headline figure against A's on this data, too"
    )
    compare.add_argument("--junit", type=Path, metavar="FILE.xml", help="for a CI's list of tests")
    compare.add_argument("--markdown", type=Path, metavar="FILE.md", help="for a CI's summary")


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_trust(sub)


def _bench(options: argparse.Namespace) -> int:
    """Measure how long a bundle's frames take here, and say what is behind each number."""
    if options.report and options.harness == "loadgen":
        raise ValueError("report: LoadGen has no page; give --json or --json-file FILE")
    _check_files(options, options.report, options.json_file)
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
        found = measure(
            options.bundles,
            settings,
            trust=parse_trust(options),
            peers=_peers(options.model),
            progress=progress,
        )
    if options.report:
        write_html(found, options.report, force=options.force)
    if not put_json(options, [measurement.as_json() for measurement in found]):
        print("\n\n".join("\n".join(lines(measurement)) for measurement in found))
        if options.report:
            print(f"report: {options.report}")
    return INTERRUPTED if found[-1].is_cut else OK


def _check_files(options: argparse.Namespace, *files: Path | None) -> None:
    """Refuse, before minutes of measuring, what could not be written after them."""
    from edgevision.tasks.outputs import refuse_foreign

    refuse_foreign([file for file in files if file], force=options.force)


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

    payload = []
    for bundle in options.bundles:
        found = drive(
            bundle, duration_s=options.duration, device=options.device, trust=parse_trust(options)
        )
        payload.append({"name": Path(bundle).name, "harness": TITLE, **asdict(found)})
        if not options.json:
            print("\n".join([f"{Path(bundle).name}: {lines(found)[0]}", *lines(found)[1:]]))
    put_json(options, {"environment": environment(), "runs": payload})
    return OK


def _compare(options: argparse.Namespace) -> int:
    """Say whether B is slower than A, measured side by side on this machine, or less accurate."""
    _check_files(options, options.junit, options.markdown, options.json_file)
    sources = (options.before, options.after)
    if options.evaluate and (options.on or not all(map(os.path.isdir, sources))):
        raise ValueError("evaluate: give two bundles; else there is one net, or nothing to run")
    if all(source.endswith(".json") for source in sources):
        return _compare_earlier(options, *sources)
    from edgevision.bench.gate import counts
    from edgevision.bench.gate.accuracy import compare_accuracy
    from edgevision.bench.gate.compare import compare
    from edgevision.bench.gate.verdict import as_json, as_junit, as_markdown
    from edgevision.tasks.outputs import MARK

    with ExitStack() as stack:
        first, second = (_side(source, options, stack) for source in sources)
        progress = stack.enter_context(progress_bar())
        counted = counts.count(first, second, gate=options.gate)
        accuracy = options.evaluate and compare_accuracy(
            *sources, options.evaluate, device=options.device, progress=progress
        )
        found = compare(first, second, gate=options.gate, progress=progress)
    said = (found, counted, first.name, second.name, accuracy)
    if options.junit:
        options.junit.write_text(as_junit(*said), "utf-8")
    if options.markdown:
        options.markdown.write_text(f"{as_markdown(*said)}\n\n<!-- {MARK} -->\n", "utf-8")
    if not put_json(options, as_json(*said)):
        print(as_markdown(*said))
    is_worse = found.verdict == "slower" or counted.grown or (accuracy and not accuracy.passed)
    return NO if is_worse else OK


def _side(source: str, options: argparse.Namespace, stack: ExitStack) -> Side:
    from edgevision.bench.gate.sides import is_package, of_bundle, of_package

    if options.on is None:
        if is_package(source) and Path(source).exists():
            raise ValueError(f"'{source}' is not a bundle: give --on BUNDLE, which both sides run")
        return of_bundle(source, device=options.device, trust=parse_trust(options))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return of_package(source, options.on, folder, device=options.device, trust=parse_trust(options))


def _compare_earlier(options: argparse.Namespace, first: str, second: str) -> int:
    from edgevision.bench.gate.earlier import compared, read

    rows = compared(read(Path(first)), read(Path(second)))
    if not put_json(options, rows):
        print(f"{second} over {first}, measured at different times: no gate, and no verdict")
        for row in rows:
            print(f"  {row['name']:24} {row['what']:24} {row['ratio']:.3f}")
    return OK


def percent(text: str) -> float:
    """Return the share that a percentage such as "5%" stands for."""
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise argparse.ArgumentTypeError(f"got '{text}', expected a percentage such as 5%")
    return float(text[:-1]) / 100
