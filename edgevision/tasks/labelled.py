"""Folders of pictures with a label each, laid out as the usual data sets are."""

from __future__ import annotations

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from edgevision.errors import FileReadError
from edgevision.progress import Progress
from edgevision.tasks.frames import IMAGE_SUFFIXES, list_images, read_image

T = TypeVar("T")

# Where pictures lie, and where their labels do; ours first, then MMSegmentation, ADE20K, Pascal
# VOC, Cityscapes and CamVid.
_HOMES = (
    ("images", "labels"), ("images", "masks"), ("images", "annotations"), ("imgs", "masks"),
    ("img_dir", "ann_dir"), ("JPEGImages", "SegmentationClass"), ("leftImg8bit", "gtFine"),
    ("701_StillsRaw_full", "LabeledApproved_full"),
)  # fmt: skip
CLASS_MAPS = (".png", ".tif", ".tiff", ".bmp")
"""What the files end in whose pixels are classes; JPEG would change the numbers."""

_BESIDE = ("annot", "_annotations", "_labels", "_masks")
_SPLITS = ("val", "validation")
# What names end in beside what a picture and its label share.
_PICTURE_ENDING = "_leftImg8bit"
_LABEL_ENDINGS = (
    "", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds", "_L", "_label",
    "_mask", "_gt",
)  # fmt: skip


def pictures_in(folder: str | os.PathLike[str]) -> list[Path]:
    """List the pictures of `folder`, or of where a data set keeps them, folders in it too.

    Raises:
        FileReadError: there is no such folder, or no picture in it.
    """
    return _pictures(_homes(Path(folder))[0])


def labelled_images(
    folder: str | os.PathLike[str], *, suffixes: Sequence[str] = CLASS_MAPS
) -> list[tuple[Path, Path | None]]:
    """List a folder's pictures with the label of each: `images/NAME` and `labels/NAME.png`.

    Layouts of Cityscapes, Pascal VOC, ADE20K, CamVid and MMSegmentation are found as they are; of
    one with splits, `val` is taken. Pictures without a label are left out, and a warning counts
    them. A folder of pictures alone has no label.

    Args:
        folder: the folder.
        suffixes: what labels end in, the first that is there is taken.

    Raises:
        FileReadError: the folder is missing or empty, or no picture has a label of its own.
    """
    home, labels = _homes(Path(folder))
    images = _pictures(home)
    if labels is None:
        return [(image, None) for image in images]
    keys = {image: image.relative_to(home).with_suffix("") for image in images}
    counted = Counter(keys.values())
    if shared := [key for key, count in counted.items() if count > 1]:
        raise FileReadError(
            f"{home}: {len(shared)} names stand for several pictures, the first "
            f"'{shared[0]}'. Each {home.name}/NAME needs a label of its own."
        )
    found = [(image, _find_label(labels, key, suffixes)) for image, key in keys.items()]
    missing = [keys[image] for image, label in found if label is None]
    reason = (
        f"{labels}: {len(missing)} of {len(images)} images have no label, the first "
        f"'{missing[0]}{suffixes[0]}'"
        if missing
        else ""
    )
    if len(missing) == len(images):
        if any((labels / key).with_suffix(".jpg").is_file() for key in missing):
            reason += ", and JPEG changes the numbers of classes"
        raise FileReadError(
            f"{reason}. Each {home.name}/NAME needs {labels.name}/NAME{' or '.join(suffixes)}."
        )
    if reason:
        warnings.warn(f"{reason}; they are left out", stacklevel=2)
    return [(image, label) for image, label in found if label is not None]


def named_pictures(folder: str | os.PathLike[str], paths: Sequence[Path]) -> dict[str, Path]:
    """Return pictures of a folder by their names below it, or below its `images/`."""
    root = Path(folder)
    return {path.relative_to(root).as_posix().removeprefix("images/"): path for path in paths}


def readable_ones(items: Sequence[T], read: Callable[[T], object]) -> list[T]:
    """Return the items that can be read; a warning counts the others.

    Raises:
        FileReadError: none can be; says why of the first.
    """
    found: list[T] = []
    first: FileReadError | None = None
    for item in items:
        try:
            read(item)
        except FileReadError as error:
            first = first or error
        else:
            found.append(item)
    if first is not None:
        if not found:
            raise first
        count = len(items) - len(found)
        warnings.warn(f"left out {count} of {len(items)}, the first: {first}", stacklevel=3)
    return found


def readable_pictures(
    pictures: Mapping[str, Path],
    progress: Progress,
    also: Callable[[str], object] = lambda name: None,
) -> dict[str, Path]:
    """Return the pictures, by name, that can be read; a warning counts the others.

    Args:
        pictures: by name.
        progress: told of each picture.
        also: reads what else a picture needs, such as its label, by its name.

    Raises:
        FileReadError: none can be; says why of the first.
    """
    numbers = itertools.count()

    def look(item: tuple[str, Path]) -> None:
        progress("reading the data", next(numbers), len(pictures))
        name, path = item
        read_image(path)
        also(name)

    return dict(readable_ones([*pictures.items()], look))


def _homes(folder: Path) -> tuple[Path, Path | None]:
    """Return where the pictures lie and where their labels do; None where there are none."""
    for images, labels in _HOMES:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            for split in _SPLITS:
                if (folder / images / split).is_dir() and (folder / labels / split).is_dir():
                    return folder / images / split, folder / labels / split
            return folder / images, folder / labels
    for ending in _BESIDE:
        beside = folder.with_name(folder.name + ending)
        if folder.name and beside.is_dir():
            return folder, beside
    for images, _ in _HOMES:
        if (folder / images).is_dir():
            # Of what is scored otherwise, labels are no pictures.
            return folder / images, None if _has_other_truth(folder) else folder / "labels"
    return folder, None


def _has_other_truth(folder: Path) -> bool:
    names = ("instances.json", "captions.json", "labels.csv")
    return any((folder / name).is_file() for name in names)


def _pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, or where it has none those of the folders in it."""
    if folder.is_dir() and not any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir()):
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if found:
            return found
    return list_images(folder)


def _find_label(labels: Path, key: Path, suffixes: Sequence[str]) -> Path | None:
    stem = key.name.removesuffix(_PICTURE_ENDING)
    for suffix in suffixes:
        for ending in _LABEL_ENDINGS:
            label = labels / key.parent / f"{stem}{ending}{suffix}"
            if label.is_file():
                return label
    return None
