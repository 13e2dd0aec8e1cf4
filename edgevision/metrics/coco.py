"""A folder of labelled pictures: `images/`, and `instances.json` or `captions.json` as COCO has it.

Source of the format: Lin et al. 2014, "Microsoft COCO", https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.files import PathLike, read_plain
from edgevision.errors import FileReadError
from edgevision.metrics.average_precision import AveragePrecision, Objects
from edgevision.metrics.metric import Metric
from edgevision.progress import Progress
from edgevision.tasks.frames import read_image
from edgevision.tasks.labelled import named_pictures, readable_ones

_MAX_BYTES = 1 << 30
_NO_PICTURE = "of pictures that are not listed"
_NO_OUTLINE = "without an outline (what a net finds there counts as wrong)"
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
# Of all masks of one picture: 4 kB of JSON can ask for any number of masks of 64 megapixels.
_MAX_MASK_BYTES = 1 << 30
# The codec walks a polygon's edges in fifths of a pixel and counts the steps in 32 bits.
_STEPS_A_PIXEL = 5
_MAX_STEPS = 1 << 22


@dataclass(frozen=True, slots=True)
class PictureObjects:
    """What is truly in one picture, and the picture's (H, W)."""

    objects: Objects
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LabelledObjects:
    """Where the pictures lie, and what is truly in each.

    Attributes:
        images: the pictures' files.
        annotations: what COCO says of each picture, entries of other categories left out.
        labels: index of each category's class.
    """

    images: tuple[Path, ...]
    annotations: tuple[tuple[Mapping[str, Any], ...], ...]
    labels: Mapping[int, int]

    def objects(self, index: int, size: tuple[int, int]) -> Objects:
        """Return what is in picture `index`, which is of `size` (H, W).

        Raises:
            FileReadError: a region does not fit; names the entry by its id.
        """
        boxes, labels, masks, crowd = [], [], [], []
        count = len(self.annotations[index])
        if count * math.prod(size) > _MAX_MASK_BYTES:
            raise FileReadError(
                f"{self.images[index].name}: {count} masks of {list(size)}, which are too many to "
                "hold"
            )
        for entry in self.annotations[index]:
            (x, y, width, height), mask = self._region(index, entry, size)
            boxes.append((x, y, x + width, y + height))
            labels.append(self.labels[int(entry["category_id"])])
            masks.append(mask)
            crowd.append(bool(entry.get("iscrowd", 0)))
        return Objects(
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(masks, bool).reshape(-1, *size),
            np.array(crowd, bool),
        )

    def readable(self) -> LabelledObjects:
        """Return what there is without pictures that cannot be read and regions that do not fit.

        A warning counts them.

        Raises:
            FileReadError: nothing is left.
        """
        sizes: dict[int, tuple[int, int]] = {}

        def look(index: int) -> None:
            sizes[index] = read_image(self.images[index]).shape[:2]

        kept = readable_ones(range(len(self.images)), look)
        entries = [(index, entry) for index in kept for entry in self.annotations[index]]
        fitting = readable_ones(entries, lambda e: self._region(*e, sizes[e[0]])) if entries else []
        of_picture: dict[int, list[Mapping[str, Any]]] = {index: [] for index in kept}
        for index, entry in fitting:
            of_picture[index].append(entry)
        return LabelledObjects(
            tuple(self.images[index] for index in kept),
            tuple(map(tuple, of_picture.values())),
            self.labels,
        )

    def _region(
        self, index: int, entry: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[tuple[float, float, float, float], npt.NDArray[np.bool_]]:
        try:
            return _box(entry), _mask(entry["segmentation"], size)
        except _BROKEN as error:
            raise FileReadError(
                f"{self.images[index].name}: {_named(entry)} is damaged: {_why(error)}"
            ) from error


class ObjectTruths:
    """The objects of a folder's pictures; see `Truths`."""

    def __init__(self, folder: str | os.PathLike[str], classes: Sequence[str]) -> None:
        self._folder, self._file = folder, Path(folder) / "instances.json"
        self._take(read_objects(folder, classes))

    def _take(self, labelled: LabelledObjects) -> None:
        self._labelled = labelled
        self.pictures = named_pictures(self._folder, labelled.images)
        self._numbers = {name: number for number, name in enumerate(self.pictures)}

    def sources(self) -> list[Path]:
        """Return the file of all objects."""
        return [self._file]

    def check(self, progress: Progress) -> None:
        """Leave out pictures and regions that cannot be read; see `Truths`."""
        self._take(self._labelled.readable())

    def of(self, name: str, size: tuple[int, int]) -> PictureObjects:
        """Return what is in a picture.

        Raises:
            FileReadError: the file does not list it, or a region does not fit.
        """
        if name not in self._numbers:
            raise FileReadError(f"'{name}': instances.json does not list it")
        return PictureObjects(self._labelled.objects(self._numbers[name], size), size)


class ObjectMetric(Metric):
    """What metrics of detected objects share: the classes, and COCO's `instances.json`."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes

    def truths(self, folder: PathLike) -> ObjectTruths:
        """Return the objects of `folder`; see `Metric`."""
        return ObjectTruths(folder, self._classes)

    def _of_classes(self, found: AveragePrecision) -> tuple[float, ...]:
        """Return the average precision of each class, NaN where it does not occur."""
        return tuple(found.per_class.get(k, math.nan) for k in range(len(self._classes)))


def read_objects(folder: str | os.PathLike[str], classes: Sequence[str]) -> LabelledObjects:
    """Read `folder`; categories belong to the class of the same name, others are left out.

    Entries of a picture that is not listed, and those without an outline, are left out as well, and
    a warning says how many.

    Raises:
        FileReadError: a file is missing, damaged or too large, no category has a class's name, or
            no entry is left.
    """
    file = Path(folder) / "instances.json"
    content, pictures, orphans = _read(file)
    try:
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
    except _BROKEN as error:
        raise FileReadError(f"{file}: not in COCO's format: categories: {_why(error)}") from error
    labels = {k: list(classes).index(name) for k, name in names.items() if name in classes}
    if not labels or not pictures:
        raise FileReadError(
            f"{file}: has {len(pictures)} pictures of {', '.join(sorted(names.values())[:8])}; "
            f"none of the classes {', '.join(classes[:8])} is among them"
        )
    flat: list[Mapping[str, Any]] = []
    kept = [
        tuple(
            entry
            for entry in picture.entries
            if _category(file, entry) in labels and _has_outline(entry, flat)
        )
        for picture in pictures
    ]
    left = [*_left_out(orphans, _NO_PICTURE), *_left_out(flat, _NO_OUTLINE)]
    if not any(kept):
        raise FileReadError(
            f"{file}: {len(pictures)} pictures, and no annotation of the classes "
            f"{', '.join(classes[:8])} is left: {'; '.join(left) or 'there is none of them'}. "
            "Nothing can be scored"
        )
    if left:
        warnings.warn(f"{file}: left out: {'; '.join(left)}", stacklevel=2)
    return LabelledObjects(tuple(picture.path for picture in pictures), tuple(kept), labels)


def read_captions(folder: str | os.PathLike[str]) -> list[tuple[Path, list[str]]]:
    """Return the pictures of `folder`, each with what people say of it; those with none left out.

    Raises:
        FileReadError: a file is missing, damaged or too large, or there are no captions.
    """
    file = Path(folder) / "captions.json"
    _, pictures, orphans = _read(file)
    for picture in pictures:
        for entry in picture.entries:
            if not isinstance(entry.get("caption"), str):
                raise FileReadError(f"{file}: {_named(entry)} has no text 'caption'")
    said = [(p.path, [str(entry["caption"]) for entry in p.entries]) for p in pictures if p.entries]
    if not said:
        raise FileReadError(f"{file}: {len(pictures)} pictures and no caption")
    if left := _left_out(orphans, _NO_PICTURE):
        warnings.warn(f"{file}: left out: {left[0]}", stacklevel=2)
    return said


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture's file, and what is said of it."""

    path: Path
    entries: list[Mapping[str, Any]]


def _read(file: Path) -> tuple[dict[str, Any], list[_Picture], list[Mapping[str, Any]]]:
    """Return what a file of COCO's holds, its pictures, and the entries that are of none of them.

    Raises:
        FileReadError: it cannot be read, or a picture cannot; those without entries may be missing.
    """
    try:
        content = json.loads(read_plain(file, max_bytes=_MAX_BYTES, follow_links=True))
        images, annotations = list(content["images"]), list(content["annotations"])
    except OSError as error:
        raise FileReadError(
            f"{file}: {error.strerror}. Such nets are scored on a folder with images/ and COCO's "
            f"{file.name}."
        ) from error
    except _BROKEN as error:
        raise FileReadError(f"{file}: not in COCO's format: {_why(error)}") from error
    pictures: dict[int, _Picture] = {}
    for image in images:
        number = _number(file, image, "id", "picture")
        if number in pictures:
            raise FileReadError(f"{file}: two pictures have the id {number}")
        pictures[number] = _Picture(_picture_file(file, image), [])
    orphans: list[Mapping[str, Any]] = []
    for entry in annotations:
        number = _number(file, entry, "image_id", "annotation")
        (pictures[number].entries if number in pictures else orphans).append(entry)
    return content, _there(file, list(pictures.values())), orphans


def _picture_file(file: Path, image: Mapping[str, Any]) -> Path:
    """Return where a picture lies: its `file_name` below images/, or below the folder itself."""
    name, root = image.get("file_name"), file.parent
    if not isinstance(name, str) or not name or "\0" in name:
        raise FileReadError(f"{file}: picture {image['id']} has no file_name")
    parts = PurePosixPath(name.replace("\\", "/"))
    first = parts.parts[0] if parts.parts else ":"
    if parts.is_absolute() or ".." in parts.parts or first.endswith(":"):
        raise FileReadError(
            f"{file}: picture {image['id']}: file_name '{name}' leads out of the folder. Write it "
            "as it lies below images/"
        )
    below = root / "images" / parts
    return below if below.is_file() or not (root / parts).is_file() else root / parts


def _there(file: Path, pictures: Sequence[_Picture]) -> list[_Picture]:
    """Return the pictures whose files are there; refuse files that are named twice, or none."""
    # Of captions, pictures that nobody speaks of are left out.
    needed = [p.path for p in pictures if p.entries or file.name != "captions.json"]
    if missing := [path for path in needed if not path.is_file()]:
        reason = (
            f"{file.parent / 'images'}: {len(missing)} of {len(needed)} pictures are missing, the "
            f"first '{missing[0].relative_to(file.parent)}'"
        )
        if len(missing) == len(needed):
            raise FileReadError(reason)
        warnings.warn(f"{reason}; they are left out", stacklevel=4)
    if twice := [path for path, count in Counter(needed).items() if count > 1]:
        raise FileReadError(f"{file}: two pictures are of '{twice[0].relative_to(file.parent)}'")
    gone = set(missing)
    return [picture for picture in pictures if picture.path not in gone]


def _number(file: Path, entry: Any, key: str, what: str) -> int:
    """Return a whole number that an entry must have."""
    value: Any = entry.get(key) if isinstance(entry, dict) else None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        is_known = isinstance(entry, dict) and key != "id" and "id" in entry
        named = f"{what} {entry['id']}" if is_known else f"one {what}"
        raise FileReadError(
            f"{file}: {named} has {key} {value!r:.80}, expected a whole number"
        ) from None


def _category(file: Path, entry: Mapping[str, Any]) -> int:
    return _number(file, entry, "category_id", "annotation")


def _has_outline(entry: Mapping[str, Any], without: list[Mapping[str, Any]]) -> bool:
    """Whether an entry has a region at all; if not, it is put into `without`.

    A polygon of one or two points has no area, and tools write such of stray clicks.
    """
    region = entry.get("segmentation")
    if region is None or (
        isinstance(region, list) and not any(map(_may_have_area, _polygons(region)))
    ):
        without.append(entry)
        return False
    return True


def _may_have_area(polygon: Any) -> bool:
    return not isinstance(polygon, list) or len(polygon) > 4


def _polygons(region: list[Any]) -> list[Any]:
    """Return a list of polygons; some tools write the only one without the list around it."""
    is_flat = bool(region) and all(isinstance(value, int | float) for value in region)
    return [region] if is_flat else region


def _left_out(entries: Sequence[Mapping[str, Any]], why: str) -> list[str]:
    count = f"{len(entries)} annotation{'s' if len(entries) > 1 else ''}"
    return [f"{count} {why}, the first is {_named(entries[0])}"] if entries else []


def _named(entry: Mapping[str, Any]) -> str:
    return (
        f"annotation {entry['id']!s:.40}"
        if "id" in entry
        else f"an annotation of {entry['image_id']}"
    )


def _why(error: Exception) -> str:
    """Return what is wrong in words that are not Python's."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, TypeError | AttributeError | OverflowError | RecursionError):
        return "a value in it is not of the kind that COCO has there"
    return str(error)[:200]


def _box(entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, _listed(entry["bbox"]))
    if not all(map(math.isfinite, (x, y, width, height))) or width < 0 or height < 0:
        raise ValueError(f"bbox {entry['bbox']!r:.80}, expected [x, y, width, height]")
    return x, y, width, height


def _listed(box: Any) -> list[Any]:
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox {box!r:.80}, expected [x, y, width, height]")
    return box


def _mask(region: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return bool[H, W] of polygons or of run lengths; ValueError if they do not fit."""
    if isinstance(region, dict):
        if tuple(region["size"]) != size:
            raise ValueError(f"the picture is {list(size)}, a region {region['size']}")
        return _from_runs(region["counts"], size)
    if not isinstance(region, list) or not region:
        raise ValueError(f"segmentation {region!r:.80}, expected polygons or run lengths")
    # The codec trusts what it gets, so that is checked before. It takes four numbers for a box.
    farthest = 4 * max(size)
    polygons = [polygon for polygon in _polygons(region) if _may_have_area(polygon)]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(abs(v) <= farthest for v in polygon):
            raise ValueError(f"expected polygons of three or more points, got {polygon!r:.80}")
    if (steps := sum(map(_steps, polygons))) > _MAX_STEPS:
        raise ValueError(f"polygons of {steps // _STEPS_A_PIXEL} pixels around")
    codec = require("pycocotools.mask", extra="metrics")
    with warnings.catch_warnings():
        # The package's arrays are of numpy 1's time.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        mask: npt.NDArray[np.bool_] = codec.decode(
            codec.merge(codec.frPyObjects(polygons, *size))
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
