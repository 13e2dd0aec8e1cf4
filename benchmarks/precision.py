"""What FP16 and INT8 cost in the task's own metric, and what they save in size.

    python -m benchmarks.precision [--json-file FILE] [--scenes 100] [--camvid FOLDER] [--plot FILE]

Without a folder: the nets whose data the repository has, by scenes of digits that no net was
trained on, over the repository's photos; calibration draws from four fifths of the digits and
photos, the score from the rest. With CamVid's folder, which the repository must not hold: the nets
of driving scenes instead. Every figure is of a real build, run by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import edgevision
from benchmarks.script import arguments, record
from benchmarks.tables import FORMS
from edgevision.bundle.directory import Bundle
from edgevision.bundle.forms import form_for
from edgevision.bundle.targets import get_target
from edgevision.engines.registry import unavailable

ROOT = Path(__file__).resolve().parents[1]
DIGITS, PHOTOS = ROOT / "tests" / "data" / "digits.npz", ROOT / "examples" / "photos"
SCENES = {"maskrcnn-digits": 4, "captioner-digits": 3}
"""Digits in a scene at most, as each net was taught."""
GENERATOR = "gan-digits"
CAMVID = ("unet-camvid", "deeplabv3-camvid", "fcn-camvid")
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("host-cpu", "rtx")
HEADLINES = ("mIoU", "mask AP", "BLEU-4", "label agreement")
_CALIBRATION, _GENERATED = 64, 2000
_SPAN = 0.04
"""What every plot shows of its metric, so that one point looks the same everywhere."""


def example(script: str, *options: object) -> str:
    """Run a script of training/, and return what it prints."""
    command = [sys.executable, str(ROOT / "training" / script), *map(str, options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return str(done.stdout)


def scenes(net: str, part: str, count: int, folder: Path) -> Path:
    """Make scenes of one part of the repository's digits and photos."""
    out = folder / f"{net}-{part}"
    seed = {"train": 8, "unseen": 7}[part]
    example(
        "scenes.py", "--digits", DIGITS, "--photos", PHOTOS, "--part", part, "--seed", seed,
        "--most", SCENES[net], "--coco", out, "--count", count,
    )  # fmt: skip
    return out


def built(
    net: str, folder: Path, calibration: Path | None = None, evaluate: Path | None = None
) -> tuple[list[Bundle], dict[str, dict[str, Any]]]:
    """Build every precision; return the bundles, and the scores of each form in the last."""
    targets = [name for name in TARGETS if unavailable(get_target(name)) is None]
    bundles, scores = [], {}
    for precision in PRECISIONS:
        summary = edgevision.build(
            net,
            folder / f"{net}-{precision}.ev",
            precision=precision,
            calibration=calibration,
            evaluate=evaluate if precision == PRECISIONS[-1] else None,
            targets=targets,
        )
        bundles.append(summary.bundle)
        scores = {score.form: score.figures() for score in summary.scores}
    return bundles, scores


def sizes(bundles: list[Bundle]) -> dict[str, dict[str, int]]:
    """Return the bytes of each form's graph, and of the engine that is built from it."""
    found = {}
    for precision, bundle in zip(PRECISIONS, bundles, strict=True):
        (stage,) = bundle.manifest.stages
        files = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
        made = {a.target: files[a.path] for a in stage.artifacts if a.path is not None}
        engine = {"engine": made["rtx"]} if "rtx" in made else {}
        found[precision] = {"graph": files[stage.graph], **engine}
        host = form_for(precision, on_gpu=False)
        if host.name != precision:
            found[host.name] = {"graph": made["host-cpu"]}
    return found


def rows(
    net: str, bundles: list[Bundle], scores: dict[str, dict[str, Any]], data: str
) -> list[dict[str, Any]]:
    """Join sizes and scores, form by form."""
    return [
        {"net": net, "form": form, "data": data, "bytes": size, "figures": scores[form]}
        for form, size in sizes(bundles).items()
    ]


def on_scenes(net: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Score a net on scenes of digits that it never saw."""
    calibration = scenes(net, "train", _CALIBRATION, folder) / "images"
    made = built(net, folder, calibration, scenes(net, "unseen", count, folder))
    return rows(net, *made, f"{count} scenes of digits that no net saw")


def generated(folder: Path) -> list[dict[str, Any]]:
    """Score the generator's pictures against FP32's and against digits that it never saw."""
    bundles, _ = built(GENERATOR, folder)
    paths = [bundle.root for bundle in bundles]
    told = json.loads(
        example("score_digit_bundles.py", "--digits", DIGITS, "--count", _GENERATED, *paths)
    )
    forms = ("fp32", "fp16", "int8", "int8-host")
    scores = dict(zip(forms, told.values(), strict=True))
    for score in scores.values():
        del score["rise"]
    return rows(GENERATOR, bundles, scores, f"{_GENERATED} seeds; 500 digits that it never saw")


def plot(path: Path, found: list[dict[str, Any]]) -> None:
    """Draw size against the metric, a panel for each net."""
    nets = list(dict.fromkeys(row["net"] for row in found))
    figure = Figure(figsize=(3.4 * len(nets), 3.4), layout="constrained")
    panels = figure.subplots(1, len(nets), squeeze=False)[0]
    for panel, net in zip(panels, nets, strict=True):
        forms = {row["form"]: row for row in found if row["net"] == net}
        headline = next(name for name in HEADLINES if name in forms["fp32"]["figures"])
        full = forms["fp32"]["figures"][headline]
        for form, row in forms.items():
            point = row["bytes"]["graph"] / 1e6, row["figures"][headline]
            panel.plot(*point, "o", label=FORMS[form])
        panel.axhline(full, color="0.7", linewidth=0.8, zorder=0)
        panel.set(xlabel="MB", ylabel=headline, ylim=(full - _SPAN / 2, full + _SPAN / 2))
        panel.set_xlim(left=0)
        panel.set_title(net, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--scenes", type=int, default=100, help="scenes to score digit nets on")
    parser.add_argument("--camvid", type=Path, help="folder with train/ and val/: CamVid's nets")
    parser.add_argument("--plot", type=Path, help="where to draw size against the metric")
    return parser


def main() -> int:
    options = parser().parse_args()
    # Its threads wait for each other by spinning: beside other work, seconds become minutes.
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if options.camvid:
            data = {
                "calibration": options.camvid / "train/images",
                "evaluate": options.camvid / "val",
            }
            for net in CAMVID:
                found += rows(net, *built(net, folder, **data), "CamVid val, 101 photos")
                print(*found[-4:], sep="\n", flush=True)
        else:
            for net in SCENES:
                found += on_scenes(net, options.scenes, folder)
                print(*found[-4:], sep="\n", flush=True)
            found += generated(folder)
            print(*found[-4:], sep="\n", flush=True)
    if options.json_file:
        record(options.json_file, rows=found)
    if options.plot:
        plot(options.plot, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
