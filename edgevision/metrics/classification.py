"""Labels over a folder: top-1 and top-5, and agreement where there are no labels."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import PathLike
from edgevision.errors import FileReadError
from edgevision.metrics.metric import Metric, Score
from edgevision.metrics.segmentation import counted_pairs
from edgevision.metrics.tally import Tally
from edgevision.progress import Progress
from edgevision.tasks.classification import ClassificationDecoder, ClassificationResult
from edgevision.tasks.labelled import named_pictures, pictures_in, readable_pictures

_MAX_LABELS_BYTES = 64 << 20
_FIVE = 5


@dataclass(frozen=True, slots=True)
class ClassificationScore(Score):
    """How one form of a classifier does on a folder.

    Attributes:
        top1: share of frames whose first label is right; None without labels.
        top5: share of frames whose label is among the first five; None without labels, or where
            the model gives fewer.
        agreement: share of frames whose first label is that of the first form; None without one.
    """

    top1: float | None
    top5: float | None
    agreement: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the report's columns."""
        return {"top-1": self.top1, "top-5": self.top5, "agrees with reference": self.agreement}


class ClassificationTruths:
    """The labels of a folder's `labels.csv`, if it has one."""

    def __init__(self, folder: PathLike, classes: tuple[str, ...]) -> None:
        self.pictures = named_pictures(folder, pictures_in(folder))
        self._file = Path(folder) / "labels.csv"
        self._labels = _read_labels(self._file, classes)

    def sources(self) -> list[Path]:
        """Return the table, if there is one; see `Truths`."""
        return [] if self._labels is None else [self._file]

    def check(self, progress: Progress) -> None:
        """Leave out pictures that cannot be read, refuse a table that does; see `Truths`."""
        self.pictures, labels = readable_pictures(self.pictures, progress), self._labels
        if labels is None:
            return
        if missing := [path.name for path in self.pictures.values() if path.name not in labels]:
            raise FileReadError(
                f"{self._file}: {len(missing)} of {len(self.pictures)} pictures have no label, the "
                f"first '{missing[0]}'. Each picture needs a line name,label."
            )

    def of(self, name: str, size: tuple[int, int]) -> int | None:
        """Return a picture's class; see `Truths`."""
        if self._labels is None:
            return None
        file = name.rpartition("/")[2]
        if file not in self._labels:
            raise FileReadError(f"{self._file}: '{file}' has no line name,label")
        return self._labels[file]


class ClassificationMetric(Metric):
    """Right labels, first and among five, and those of the first form.

    A folder holds `images/` and `labels.csv`, a table with the columns `name` (of the picture's
    file) and `label` (a class's name or its number); or pictures only: then there is agreement and
    no top-1.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def truths(self, folder: PathLike) -> ClassificationTruths:
        """Return the labels of `folder`; see `Metric`."""
        return ClassificationTruths(folder, self._classes)

    def add(
        self,
        tally: Tally,
        frame: int,
        truth: int | None,
        found: ClassificationResult,
        first: ClassificationResult | None,
    ) -> None:
        """Count one frame; see `Metric`."""
        labels = found.labels
        if first is not None:
            tally.count("compared", 1)
            tally.count("same", int(labels[0] == first.labels[0]))
        if first is not None and first is not found:
            count = len(self._classes)
            tally.count("against", counted_pairs(first.labels[:1], labels[:1], count))
        if truth is None:
            return
        tally.count("labelled", 1)
        tally.count("right", int(labels[0] == truth))
        if len(labels) >= _FIVE:
            tally.count("of five", 1)
            tally.count("right of five", int((labels[:_FIVE] == truth).any()))

    def score(self, form: str, tally: Tally) -> ClassificationScore:
        """Return the shares; see `Metric`."""

        def share(part: str, whole: str) -> float | None:
            count = tally.number(whole)
            return tally.number(part) / count if count else None

        top1, top5 = share("right", "labelled"), share("right of five", "of five")
        return ClassificationScore(form, top1, top5, share("same", "compared"))

    def against(self, tally: Tally) -> npt.NDArray[np.int64] | None:
        """Return the frames of each label of the first form by that of this one; see `Metric`."""
        found = tally.counts("against")
        return found[:, :-1] if found.ndim else None


def metric(decoder: ClassificationDecoder) -> ClassificationMetric:
    """Return the metric of a classifier; see `Metric`."""
    return ClassificationMetric(decoder.classes)


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
