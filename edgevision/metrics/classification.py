"""Labels over a folder: top-1 and top-5, and agreement where there are no labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.errors import FileReadError
from edgevision.metrics.metric import PathLike, Predict, Score
from edgevision.progress import Progress, silent
from edgevision.tasks.classification import ClassificationDecoder, ClassificationResult
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.labelled import pictures_in, readable_ones

Image = npt.NDArray[np.uint8]

_MAX_LABELS_BYTES = 64 << 20
_FIVE = 5


@dataclass(frozen=True, slots=True)
class ClassificationScore:
    """How one form of a classifier does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        top1: share of frames whose first label is right; None without labels.
        top5: share of frames whose label is among the first five; None without labels, or where
            the model gives fewer.
        agreement: share of frames whose first label is that of the first form.
    """

    form: str
    top1: float | None
    top5: float | None
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {"top-1": self.top1, "top-5": self.top5, "agrees with torch": self.agreement}

    def per_class(self) -> tuple[float, ...]:
        """Return nothing: a folder rarely shows each of a classifier's classes."""
        return ()


def score_folder(
    decoder: ClassificationDecoder,
    forms: Mapping[str, Predict],
    folder: PathLike,
    progress: Progress,
) -> list[Score]:
    """Score each form on the pictures of `folder`; see `evaluate_labels`."""
    return list(
        evaluate_labels(
            forms,
            folder,
            classes=decoder.classes,
            frame_size=decoder.camera.size,
            progress=progress,
        )
    )


def evaluate_labels(
    forms: Mapping[str, Callable[[Image], ClassificationResult]],
    folder: str | os.PathLike[str],
    *,
    classes: tuple[str, ...],
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[ClassificationScore]:
    """Score each form on every picture of `folder`; the first form is what the others agree with.

    `folder` holds `images/` and `labels.csv`, a table with the columns `name` (of the picture's
    file) and `label` (a class's name or its number); or pictures only: then there is agreement and
    no top-1. Frames are resized to `frame_size`.

    Raises:
        FileReadError: the folder is empty, a picture has no label, or a label is not a class.
    """
    paths = readable_ones(pictures_in(folder), read_image)
    truth = _read_labels(Path(folder) / "labels.csv", classes)
    if truth is not None and (missing := [p.name for p in paths if p.name not in truth]):
        raise FileReadError(
            f"{Path(folder) / 'labels.csv'}: {len(missing)} of {len(paths)} pictures have no "
            f"label, the first '{missing[0]}'. Each picture needs a line name,label."
        )
    found: dict[str, list[npt.NDArray[np.int32]]] = {form: [] for form in forms}
    for done, path in enumerate(paths):
        progress("evaluating", done, len(paths))
        frame = resize(read_image(path), frame_size)
        for form, predict in forms.items():
            found[form].append(predict(frame).labels)
    progress("evaluating", len(paths), len(paths))
    first = np.stack(next(iter(found.values())))[:, 0]
    wanted = None if truth is None else np.array([[truth[path.name]] for path in paths])
    scores = []
    for form, rows in found.items():
        labels = np.stack(rows)
        right = None if wanted is None else labels == wanted
        scores.append(
            ClassificationScore(
                form,
                top1=None if right is None else float(right[:, 0].mean()),
                top5=_top5(right),
                agreement=float((labels[:, 0] == first).mean()),
            )
        )
    return scores


def _top5(right: npt.NDArray[np.bool_] | None) -> float | None:
    if right is None or right.shape[1] < _FIVE:
        return None
    return float(right[:, :_FIVE].any(1).mean())


def _read_labels(path: Path, classes: tuple[str, ...]) -> dict[str, int] | None:
    """Return each picture's class, None without the file."""
    if not path.is_file():
        return None
    numbers = {name: index for index, name in enumerate(classes)}
    numbers.update(
        {str(index): index for index in range(len(classes)) if str(index) not in numbers}
    )
    try:
        if path.stat().st_size > _MAX_LABELS_BYTES:
            raise FileReadError(f"{path}: more than {_MAX_LABELS_BYTES} bytes, which are read")
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            if not {"name", "label"} <= set(table.fieldnames or ()):
                raise FileReadError(
                    f"{path}: the first line is {table.fieldnames}, expected name,label"
                )
            rows = [(row["name"], row["label"]) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileReadError(f"{path}: cannot be read as a table: {error}") from error
    for name, label in rows:
        if label not in numbers:
            raise FileReadError(
                f"{path}: '{name}' has label {label!r:.80}, which is not one of the model's "
                f"{len(classes)} classes; expected a name such as '{classes[0]}' or a number"
            )
    return {name: numbers[label] for name, label in rows}
