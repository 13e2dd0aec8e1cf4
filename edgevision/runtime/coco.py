"""A folder of labelled pictures: `images/`, and `instances.json` or `captions.json` as COCO has it.

Source of the format: Lin et al. 2014, "Microsoft COCO", https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._files import read_plain
from edgevision._optional import require
from edgevision.errors import FileReadError
from edgevision.metrics.detection import Objects

_MOST_BYTES = 1 << 30
# Of all masks of one picture: 4 kB of JSON can ask for any number of masks of 64 megapixels.
_MOST_MASK_BYTES = 1 << 30
# The codec walks a polygon's edges in fifths of a pixel and counts the steps in 32 bits.
_STEPS_A_PIXEL = 5
_MOST_STEPS = 1 << 22


@dataclass(frozen=True, slots=True)
class LabelledObjects:
    """Where the pictures lie, and what is truly in each.

    Attributes:
        images: the pictures' files.
        annotations: what COCO says of each picture.
        labels: index of each category's class.
    """

    images: tuple[Path, ...]
    annotations: tuple[tuple[Mapping[str, Any], ...], ...]
    labels: Mapping[int, int]

    def objects(self, index: int, size: tuple[int, int]) -> Objects:
        """Return what is in picture `index`, which is of `size` (H, W).

        Raises:
            FileReadError: a region does not fit.
        """
        boxes, labels, masks, crowd = [], [], [], []
        try:
            entries = [e for e in self.annotations[index] if e["category_id"] in self.labels]
            if len(entries) * math.prod(size) > _MOST_MASK_BYTES:
                raise ValueError(
                    f"{len(entries)} masks of {list(size)}, which are too many to hold"
                )
            for entry in entries:
                x, y, width, height = map(float, entry["bbox"])
                if not all(map(math.isfinite, (x, y, width, height))):
                    raise ValueError(f"the box {entry['bbox']}")
                masks.append(_mask(entry["segmentation"], size))
                boxes.append((x, y, x + width, y + height))
                labels.append(self.labels[entry["category_id"]])
                crowd.append(bool(entry.get("iscrowd", 0)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileReadError(
                f"{self.images[index].name}: an annotation is damaged: {error!r:.200}"
            ) from error
        return Objects(
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(masks, bool).reshape(-1, *size),
            np.array(crowd, bool),
        )


def read_objects(folder: str | os.PathLike[str], classes: Sequence[str]) -> LabelledObjects:
    """Read `folder`; categories belong to the class of the same name, others are left out.

    Raises:
        FileReadError: a file is missing, damaged or too large, or no category has a class's name.
    """
    path = Path(folder)
    file = path / "instances.json"
    content, files, entries = _read(file)
    try:
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise FileReadError(f"{file}: not in COCO's format: {error!r:.200}") from error
    labels = {k: list(classes).index(name) for k, name in names.items() if name in classes}
    if not labels or not entries:
        raise FileReadError(
            f"{file}: has {len(entries)} pictures of {', '.join(sorted(names.values())[:8])}; "
            f"none of the classes {', '.join(classes[:8])} is among them"
        )
    _check_present(files.values())
    return LabelledObjects(tuple(files.values()), tuple(tuple(entries[k]) for k in files), labels)


def read_captions(folder: str | os.PathLike[str]) -> list[tuple[Path, list[str]]]:
    """Return the pictures of `folder`, each with what people say of it; those with none left out.

    Raises:
        FileReadError: a file is missing, damaged or too large, or there are no captions.
    """
    file = Path(folder) / "captions.json"
    _, files, entries = _read(file)
    try:
        said = {k: [str(entry["caption"]) for entry in entries[k]] for k in files}
    except (KeyError, TypeError) as error:
        raise FileReadError(f"{file}: not in COCO's format: {error!r:.200}") from error
    found = [(files[k], captions) for k, captions in said.items() if captions]
    if not found:
        raise FileReadError(f"{file}: {len(files)} pictures and no caption")
    _check_present(path for path, _ in found)
    return found


def _read(file: Path) -> tuple[dict[str, Any], dict[int, Path], dict[int, list[Mapping[str, Any]]]]:
    """Return what a file of COCO's holds, its pictures, and what is said of each."""
    try:
        content = json.loads(read_plain(file, max_bytes=_MOST_BYTES, follow_links=True))
        entries: dict[int, list[Mapping[str, Any]]] = {int(i["id"]): [] for i in content["images"]}
        for entry in list(content["annotations"]):
            entries[int(entry["image_id"])].append(entry)
        files = {
            int(i["id"]): file.parent / "images" / Path(str(i["file_name"])).name
            for i in content["images"]
        }
    except OSError as error:
        raise FileReadError(
            f"{file}: {error.strerror}. Such nets are scored on a folder with images/ and COCO's "
            f"{file.name}."
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise FileReadError(f"{file}: not in COCO's format: {error!r:.200}") from error
    return content, files, entries


def _check_present(paths: Iterable[Path]) -> None:
    checked = list(paths)
    if missing := [path for path in checked if not path.is_file()]:
        raise FileReadError(
            f"{missing[0].parent}: {len(missing)} of {len(checked)} pictures are missing, the "
            f"first '{missing[0].name}'"
        )


def _mask(region: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return bool[H, W] of polygons or of run lengths; ValueError if they do not fit."""
    if isinstance(region, dict):
        if tuple(region["size"]) != size:
            raise ValueError(f"the picture is {list(size)}, a region {region['size']}")
        return _from_runs(region["counts"], size)
    # The codec trusts what it gets, so that is checked before.
    farthest = 4 * max(size)
    for polygon in region:
        if len(polygon) < 6 or len(polygon) % 2 or not all(abs(v) <= farthest for v in polygon):
            raise ValueError(f"expected polygons of three or more points, got {polygon!r:.80}")
    if (steps := sum(map(_steps, region))) > _MOST_STEPS:
        raise ValueError(f"polygons of {steps // _STEPS_A_PIXEL} pixels around")
    codec = require("pycocotools.mask", extra="metrics")
    with warnings.catch_warnings():
        # The package's arrays are of numpy 1's time.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        mask: npt.NDArray[np.bool_] = codec.decode(
            codec.merge(codec.frPyObjects(region, *size))
        ).astype(bool)
    return mask


def _steps(polygon: Sequence[float]) -> float:
    """Return how many points the codec sets on the way around a polygon, at most."""
    x, y = np.array(polygon[::2], np.float64), np.array(polygon[1::2], np.float64)
    longest = np.maximum(abs(x - np.roll(x, 1)), abs(y - np.roll(y, 1)))
    return float(_STEPS_A_PIXEL * longest.sum()) + 2 * len(x)


def _from_runs(counts: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return a mask of runs of 0 and 1 in turn, down the columns; text holds them compressed."""
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    lengths, pixels = np.array(runs, np.int64), size[0] * size[1]
    # Each is bounded before they are added up: a sum that overflows can be right by chance.
    fits = lengths.ndim == 1 and ((lengths >= 0) & (lengths <= pixels)).all()
    if not fits or lengths.sum() != pixels:
        raise ValueError(f"run lengths that do not fill {list(size)}")
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(size[1], size[0]).T


def _uncompressed(text: str) -> list[int]:
    """Return the run lengths in COCO's text: six bits a character, differences from the third on.

    Source: `rleToString` in https://github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError(f"run lengths hold {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
