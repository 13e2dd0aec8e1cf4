"""The demo: a shipped net becomes an INT8 bundle, segments street photos, and reports on itself."""

from __future__ import annotations

import filecmp
import os
import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.directory import Bundle
from edgevision.engines.summary import BuildSummary
from edgevision.errors import FileWriteError
from edgevision.machine.identity import int8_instructions
from edgevision.metrics.baselines import ColourVotes, Method
from edgevision.progress import Progress, silent
from edgevision.runtime.files.batch import save_pictures
from edgevision.runtime.load import load
from edgevision.runtime.model import Model
from edgevision.tasks.camera import ClassLabel
from edgevision.tasks.camera_task import marked_red
from edgevision.tasks.frames import list_images, read_image, resize
from edgevision.tasks.outputs import jpeg_url, page, refuse_foreign
from edgevision.tasks.semantic import TASK as SEMANTIC
from edgevision.tasks.semantic import SemanticDecoder, SemanticResult

Net = Model[SemanticResult]

_NET = "unet-camvid"
_BUNDLES = ("fp32.ev", "int8.ev")
_PAGE = "report.html"
_PICTURES = "pictures"
_PHOTOS = "photos"
_REPEATS = 5
_CLASSICAL_PHOTOS = 2


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo made: the INT8 build, the report's page and the overlay pictures.

    `size_bytes` is of each file that a target would load; `int8_here` says what INT8's time on
    this CPU means.
    """

    summary: BuildSummary
    page: Path
    pictures: tuple[Path, ...]
    size_bytes: dict[str, int]
    int8_here: str


_Answers = list[tuple[npt.NDArray[np.uint8], SemanticResult]]


@dataclass(frozen=True, slots=True)
class _Row:
    """One photo in the report; pictures as data URIs."""

    name: str
    photo: str
    overlay: str
    difference: str
    agreement: float
    shares: str


def run_demo(out: str | os.PathLike[str], *, progress: Progress = silent) -> DemoReport:
    """Build, run and report into the folder `out`.

    Raises:
        FileWriteError: something that the demo did not make is in its place in `out`.
        MissingDependencyError: a package that the demo needs, edgevision-zoo among them, is not
            installed.
    """
    require("jinja2", extra="report")  # before torch, which takes seconds
    from edgevision.export.build import build
    from edgevision.export.zoo import card_classes, shipped_photos, zoo_entry

    photos = shipped_photos()
    entry = zoo_entry(_NET)
    folder = Path(out)
    _check_folder(folder, photos)
    (folder / _PHOTOS).mkdir(parents=True, exist_ok=True)
    for source, copy in _photo_copies(photos, folder):
        shutil.copyfile(source, copy)
    # Scored with the other forms, below.
    plain = build(_NET, folder / _BUNDLES[0], samples=photos, progress=progress)
    summary = build(
        _NET,
        folder / _BUNDLES[1],
        precision="int8",
        calibration=photos,
        evaluate=photos,
        targets=["host-cpu", "rtx"],
        progress=progress,
    )
    with load(plain.bundle) as fp32, load(summary.bundle) as int8:
        rows, pictures, latency, answers = _segment(fp32, int8, photos, folder, progress)
        classical = _classical(answers, len(_taken(fp32)[1]), progress)
        explained = int8.explain()
    path, sizes, int8_here = folder / _PAGE, _sizes(plain, summary), _int8_here(latency)
    html = page(
        "edgevision.cli",
        "demo.html.jinja",
        extra="report",
        net=_NET,
        metrics=entry.metrics,
        scores=summary.scores,
        sizes=sizes,
        latency=latency,
        int8_here=int8_here,
        rows=rows,
        classical=classical,
        classes=[ClassLabel(name, color) for name, color in card_classes(entry.card)],
        artifacts=summary.bundle.manifest.stages[0].artifacts,
        explained=explained,
        provenance=summary.bundle.manifest.provenance,
    )
    path.write_text(html, "utf-8")
    return DemoReport(summary, path, tuple(pictures), sizes, int8_here)


def _check_folder(folder: Path, photos: Path) -> None:
    """Refuse, before anything is built, a folder where somebody's own files would be replaced."""
    pictures = [
        folder / _PICTURES / f"{path.stem}{ending}"
        for path in list_images(photos)
        for ending in SEMANTIC.picture_endings
    ]
    copies = [copy for source, copy in _photo_copies(photos, folder) if not _same(source, copy)]
    refuse_foreign([folder / _PAGE, *pictures, *copies])
    for path in (folder / name for name in _BUNDLES):
        if path.is_dir() and any(path.iterdir()):
            found = Bundle.open(path, check_hashes=False).manifest
            if found.provenance.get("source") != _NET:
                raise FileWriteError(
                    f"'{path}' is a bundle of '{found.name}', not of the demo, and is not "
                    "replaced. Give another --out"
                )


def _photo_copies(photos: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Return where each photo goes, so that whoever has no clone can run the other verbs on it."""
    return [(path, folder / _PHOTOS / path.name) for path in sorted(photos.iterdir())]


def _same(source: Path, copy: Path) -> bool:
    return copy.is_file() and filecmp.cmp(source, copy, shallow=False)


def _segment(
    fp32: Model[SemanticResult],
    int8: Model[SemanticResult],
    photos: Path,
    folder: Path,
    progress: Progress,
) -> tuple[list[_Row], list[Path], dict[str, float], _Answers]:
    """Segment every photo by both nets in turn.

    Returns rows, overlays, median times in ms, and each photo with FP32's answer.
    """
    images, (size, _) = list_images(photos), _taken(int8)
    rows, pictures = [], []
    answers: _Answers = []
    times_ms: dict[str, list[float]] = {"FP32": [], "INT8": []}
    for done, path in enumerate(images):
        progress("segmenting", done, len(images))
        photo = resize(read_image(path), size)
        wide, narrow = fp32(photo), int8(photo)
        answers.append((photo, wide))
        for _ in range(_REPEATS):
            for name, model in (("FP32", fp32), ("INT8", int8)):
                times_ms[name].append(model(photo).timings.total_ms)
        pictures.append(save_pictures(narrow, photo, folder / _PICTURES, path.stem)[0])
        differs = wide.mask != narrow.mask
        rows.append(
            _Row(
                name=path.stem,
                photo=jpeg_url(photo),
                overlay=jpeg_url(narrow.overlay(photo)),
                difference=jpeg_url(marked_red(photo, differs)),
                agreement=1 - float(differs.mean()),
                shares=", ".join(f"{k} {v:.0%}" for k, v in list(narrow.shares().items())[:4]),
            )
        )
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    return rows, pictures, medians, answers


def _classical(answers: _Answers, class_count: int, progress: Progress) -> list[dict[str, str]]:
    """Segment two photos by each classical method, taught by the net's answers to the others."""
    rows: list[dict[str, str]] = []
    for shown, (frame, result) in enumerate(answers[:_CLASSICAL_PHOTOS]):
        progress("segmenting without a net", shown, _CLASSICAL_PHOTOS)
        votes = ColourVotes(class_count)
        for index, (other_frame, taught) in enumerate(answers):
            if index != shown:
                votes.add(other_frame, taught.mask)
        row = {"photo": jpeg_url(frame), "net": jpeg_url(result.overlay(frame))}
        for method in get_args(Method):
            other = replace(result, mask=votes.classify(frame, method))
            row[method] = jpeg_url(other.overlay(frame))
        rows.append(row)
    return rows


def _taken(net: Net) -> tuple[tuple[int, int], tuple[ClassLabel, ...]]:
    """Return (H, W) of the net's frame, and its classes."""
    assert isinstance(net.decoder, SemanticDecoder)
    return net.decoder.camera.size, net.decoder.classes


def _int8_here(latency: dict[str, float]) -> str:
    """Return what INT8's time on this CPU comes from, and that it says nothing of a GPU."""
    have = ", ".join(int8_instructions())
    why = (
        f"sums of 8-bit products by {have}"
        if have
        else "it has no instructions for sums of 8-bit products (VNNI, AMX, Arm's dot product), "
        "so INT8 is computed in float32 with the rounding added"
    )
    ratio = latency["INT8"] / latency["FP32"]
    return (
        f"INT8 took {ratio:.1f} times as long as FP32 on this CPU: {why}. "
        "A GPU's times do not follow from it."
    )


def _sizes(plain: BuildSummary, summary: BuildSummary) -> dict[str, int]:
    """Return the bytes of each file that a target would load."""
    sizes = {"FP32 graph": plain.bundle.manifest, "INT8 graph": summary.bundle.manifest}
    found = {}
    for label, manifest in sizes.items():
        by_path = {entry.path: entry.size_bytes for entry in manifest.files}
        found[label] = by_path[manifest.stages[0].graph]
        for artifact in manifest.stages[0].artifacts:
            if artifact.path is not None:
                found[f"{label.split()[0]} for {artifact.target}"] = by_path[artifact.path]
    return found
