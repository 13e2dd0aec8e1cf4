"""The verbs `build` and `demo`: a trained model becomes a bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from edgevision.bundle.directory import MANIFEST
from edgevision.bundle.forms import PRECISIONS
from edgevision.cli import finish
from edgevision.cli.build_file import KEYS, parse_size, read_build_file, read_named, read_setting
from edgevision.cli.exits import OK
from edgevision.cli.summary import print_scores, report
from edgevision.cli.terminal import progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_trust, parse_trust, verb

_NOBODY = argparse.Namespace(key=None, minimum_version=0, name=None)
_FLAGS = (
    "out", "weights", "size", "classes", "cameras", "mean", "std", "precision", "calibration",
    "evaluate", "ignore_index", "samples", "strict", "budget", "search_minutes",
)  # fmt: skip
_CAMERA_FLAGS = {"camera_size": "size", "pixel_format": "pixel_format", "fit": "fit"}


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    demo = verb(verbs, "demo", _demo, example="demo --out edgevision-demo", is_watched=True)
    demo.add_argument("--out", type=Path, default=Path("edgevision-demo"), help="folder to write")
    build = verb(
        verbs, "build", _build,
        example="build unet-camvid --precision int8 --calibration frames/ --target host-cpu "
        "--target rtx --out road.ev", is_watched=True,
    )  # fmt: skip
    build.usage = "edgevision build SOURCE [OPTION]...  (--help lists the options)"
    build.add_argument(
        "source",
        metavar="SOURCE",
        help="a shipped net, package.module:factory, FILE.onnx, or FILE.toml, which holds any of "
        "these options and more (docs/build-file.md)",
    )
    build.add_argument("--out", type=Path, metavar="NAME.ev", help="the bundle to write")
    build.add_argument("--weights", type=Path, metavar="FILE", help="safetensors or a checkpoint")
    build.add_argument("--size", type=_size, metavar="HxW", help="the net's input size")
    build.add_argument(
        "--classes", type=Path, metavar="FILE", help="a class name a line, optional #rrggbb"
    )
    build.add_argument("--camera-size", type=_size, metavar="HxW", help="default: the net's")
    build.add_argument(
        "--pixel-format",
        metavar="NAME",
        help="what the camera's driver hands over: rgb8 (default), bgr8, gray8, nv12, yuyv, "
        "rggb16, ...; rows, matrix, range and bits: see docs/build-file.md",
    )
    build.add_argument(
        "--fit", metavar="NAME", help="how frames meet the net: stretch (default), letterbox, crop"
    )
    build.add_argument(
        "--cameras", type=_cameras, metavar="N", help="frames in one call: 6, or 1:8 for any number"
    )
    build.add_argument("--mean", type=_three, metavar="R,G,B", help="on the 0-1 scale")
    build.add_argument("--std", type=_three, metavar="R,G,B", help="on the 0-1 scale")
    build.add_argument("--precision", choices=PRECISIONS, help="default: fp32")
    build.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="typical frames, for INT8: a folder, list.txt, .tar or .parquet",
    )
    build.add_argument(
        "--evaluate",
        type=Path,
        metavar="DIR",
        help="images/ with labels/, instances.json or captions.json to score on",
    )
    build.add_argument(
        "--label-map",
        metavar="MAP",
        help="the class of each number or colour in label files, e.g. 0=0,255=1 or '#800000=cat'",
    )
    build.add_argument(
        "--ignore-index", type=int, metavar="N", help="what is void in label files, beside 255"
    )
    build.add_argument(
        "--samples", type=Path, metavar="DIR", help="inputs to prove the graphs on; tensors: .npz"
    )
    build.add_argument(
        "--range", action="append", metavar="NAME=LOW:HIGH", help="what a drawn input may hold"
    )
    build.add_argument(
        "--shape", action="append", metavar="NAME=MIN:MAX",
        help="an ONNX file's open input, e.g. x=1x3x480x640:4x3x960x1280",
    )  # fmt: skip
    build.add_argument(
        "--target", action="append", metavar="NAME", help="default: host-cpu; may be repeated"
    )
    build.add_argument(
        "--budget",
        type=_budget,
        metavar="LOSS",
        help="what INT8 may lose of the task's figure, e.g. 0.005, or `task`: finds the most INT8 "
        "inside it",
    )
    build.add_argument(
        "--search-minutes", type=float, metavar="N", help="how long it may look for that: 60"
    )
    build.add_argument(
        "--strict",
        action="store_true",
        default=None,
        help="refuse an FP16 or INT8 graph that misses a bar of parity, which else is warned of",
    )
    finish.add_settings(build, "any key of a build file, e.g. keep_fp32=Softmax,Exp")
    add_trust(build)
    # Hidden: what was a flag of its own before build files, and what the alias of `finish` takes.
    build.add_argument(
        "--task", dest="set", action="append", type="task={}".format, help=argparse.SUPPRESS
    )
    build.add_argument("--lean", action="store_true", help=argparse.SUPPRESS)
    build.add_argument("--engines", type=Path, help=argparse.SUPPRESS)


def _demo(options: argparse.Namespace) -> int:
    """Segment street photos with an INT8 net on this CPU, and write a report."""
    from edgevision.cli.demo import run_demo

    with progress_bar() as progress:
        made = run_demo(options.out, progress=progress)
    document = {
        "report": str(made.page),
        "pictures": [str(p) for p in made.pictures],
        "size_bytes": made.size_bytes,
        "int8_here": made.int8_here,
    }
    if put_json(options, document):
        return OK
    print_scores(made.summary)
    print("  ".join(f"{name}: {size / 1e6:.1f} MB" for name, size in made.size_bytes.items()))
    print(f"Pictures, and a report on one page: {made.page}")
    print(made.int8_here)
    return OK


def _build(options: argparse.Namespace) -> int:
    """Turn a trained model into a bundle that carries its proof."""
    if _is_bundle(Path(options.source), options.out):
        return _finish_instead(options)
    arguments = _arguments(options)
    from edgevision.export.build import build  # needs torch; the branch above does not

    if isinstance(arguments.get("classes"), Path):
        from edgevision.export.source import read_classes

        arguments["classes"] = read_classes(arguments["classes"])
    if "camera" in arguments:
        from edgevision.export import Camera

        arguments["camera"] = Camera(**arguments["camera"])
    if arguments.get("budget") is not None:
        minutes = arguments.get("search_minutes", 60)
        print(
            f"edgevision: looking for the most INT8 inside a budget of {arguments['budget']}: up "
            f"to {minutes:g} minutes; what was measured is kept, so it may be stopped",
            file=sys.stderr,
        )
    with progress_bar() as progress:
        summary = build(**arguments, progress=progress)
    return report(options, summary, on_device=False)


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `edgevision.build` is called with: the file's keys, then the command's."""
    if options.engines or options.lean or parse_trust(options) != parse_trust(_NOBODY):
        raise ValueError(
            "--engines, --lean, --key, --minimum-version and --name are for a bundle: edgevision "
            "finish BUNDLE"
        )
    given: dict[str, Any] = {"source": options.source}
    if options.source.endswith(".toml"):
        given = read_build_file(Path(options.source))
        if "source" not in given:
            raise ValueError(f"{options.source}: source is missing; expected {KEYS['source']}")
    given |= {key: value for key in _FLAGS if (value := getattr(options, key)) is not None}
    if options.target:
        given["targets"] = options.target
    for key, written in (("ranges", options.range), ("shapes", options.shape)):
        if written:
            given[key] = given.get(key, {}) | read_named(key, written)
    if options.label_map is not None:
        given["label_map"] = read_named("label_map", options.label_map.split(","))
    given |= dict(map(read_setting, options.set or ()))
    flags = {
        field: value
        for flag, field in _CAMERA_FLAGS.items()
        if (value := getattr(options, flag)) is not None
    }
    if flags:
        given["camera"] = {**given.get("camera", {}), **flags}
    if "out" not in given:
        raise ValueError("where shall the bundle go? Give --out NAME.ev")
    given["cache"] = finish.open_cache(given.pop("cache", True))
    return given


def _is_bundle(path: Path, out: Path | None) -> bool:
    """Whether SOURCE is a bundle, and not a net beside whose name a folder lies by chance."""
    if not path.is_dir():
        return False
    return path.suffix == ".ev" or (out is None and (path / MANIFEST).is_file())


def _finish_instead(options: argparse.Namespace) -> int:
    """Do what `build BUNDLE --target NAME` did before there was `finish`; goes with 0.3."""
    flags = (*_FLAGS, *_CAMERA_FLAGS)
    unused = [
        f"--{key.replace('_', '-')}" for key in flags if key != "evaluate" and getattr(options, key)
    ]
    if unused:
        raise ValueError(
            f"{', '.join(unused)}: '{options.source}' is a bundle already, and its graph stays as "
            "it is. To build engines for it: edgevision finish BUNDLE --target NAME"
        )
    if not options.target:
        raise ValueError("--target is required to build engines for a bundle")
    options.bundle = Path(options.source)
    words = ["edgevision", "finish", options.source]
    words += [word for name in options.target for word in ("--target", name)]
    print(f"edgevision: `build` of a bundle is now: {shlex.join(words)}", file=sys.stderr)
    return finish.run(options)


def _cameras(text: str) -> int | tuple[int, int]:
    ends = [int(part) if part.isdecimal() else 0 for part in text.split(":")]
    if len(ends) > 2 or not all(ends):
        raise argparse.ArgumentTypeError(
            f"got '{text}', expected a number of cameras such as 6, or the fewest and most, 1:8"
        )
    return ends[0] if len(ends) == 1 else (ends[0], ends[1])


def _budget(text: str) -> float | str:
    if text == "task":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got '{text}', expected what may be lost such as 0.005, or task"
        ) from None


def _three(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise argparse.ArgumentTypeError(
            f"got '{text}', expected three numbers such as 0.485,0.456,0.406"
        )
    return values


def _size(text: str) -> tuple[int, int]:
    size = parse_size(text)
    if size is None:
        raise argparse.ArgumentTypeError(f"got '{text}', expected HEIGHTxWIDTH such as 360x480")
    return size
