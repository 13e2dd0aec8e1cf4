"""What label maps hold, looked at before a score of them is believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_SHOWN = 10
_MUCH_VOID = 0.5
_MUCH_GAINED = 0.3
_VOID = 255
_WIDENED = 17
"""What 4-bit values are multiplied with where a tool spreads them over 0 to 255."""


class LabelValues:
    """How often each value stands in label maps of `class_count` classes.

    A value that is not below `class_count` is void and never scored. So is the object itself, where
    a mask holds 255 for it: a net that never finds it would be right everywhere.
    """

    def __init__(self, class_count: int, counts: npt.NDArray[np.int64] | None = None) -> None:
        self.class_count = class_count
        self._counts = np.zeros(256, np.int64) if counts is None else counts

    def add(self, labels: npt.NDArray[np.uint8]) -> None:
        """Count the values of one map."""
        self._counts += np.bincount(labels.ravel(), minlength=256)

    def refusal_reason(self) -> str:
        """Return why no score of these labels says anything; empty if one may."""
        occurring = np.flatnonzero(self._counts[: self.class_count])
        if not occurring.size:
            return f"no pixel holds a class: {self._found()}. {self._advice()}"
        if occurring.size == 1 < self.class_count and self._void().size:
            return (
                f"of {self.class_count} classes only {occurring[0]} occurs, and all else is void, "
                "which is not scored, so that a net which never says another class would be right "
                f"everywhere: {self._found()}. {self._advice()}"
            )
        return ""

    def doubt_reason(self) -> str:
        """Return what a reader of the score should know of the labels; empty if nothing."""
        missing = np.flatnonzero(self._counts[: self.class_count] == 0)
        void, payload = self._void(), []
        share = self._counts[self.class_count :].sum() / max(1, self._counts.sum())
        if missing.size:
            payload.append(f"of {self.class_count} classes {_listed(missing)} never occur")
        if missing.size == self.class_count - 1 > 0:
            payload.append("a net that never says them is right everywhere")
        if share > _MUCH_VOID or np.count_nonzero(void != _VOID) > 1:
            payload.append(f"{share:.1%} of the pixels are void and not scored")
        if not payload:
            return ""
        advice = f" {self._advice()}" if void.size else ""
        return f"{', and '.join(payload)}: {self._found()}.{advice}"

    def _void(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self._counts[self.class_count :]) + self.class_count

    def _found(self) -> str:
        shares = self._counts / max(1, self._counts.sum())
        values = np.flatnonzero(self._counts)
        shown = ", ".join(f"{value} ({shares[value]:.2%})" for value in values[:_SHOWN])
        more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
        return f"found the values {shown}{more}, classes are 0 to {self.class_count - 1}"

    def _advice(self) -> str:
        """Return what the values likely mean, and how to write the files that they should be."""
        values, void = np.flatnonzero(self._counts), self._void()
        last = self.class_count - 1
        widened = not (values % _WIDENED).any() and values.max() <= _WIDENED * last
        count = range(self.class_count)
        if last == 1 and void.size == 1 and not self._counts[1]:
            meaning, change = f"{void[0]} is the object", f"1 if v == {void[0]} else v"
            table = {0: 0, int(void[0]): 1}
        elif widened:
            meaning, change = "they are 4-bit indices spread to 8 bits", f"v // {_WIDENED}"
            table = {_WIDENED * k: k for k in count}
        elif not self._counts[0] and self._counts[self.class_count]:
            meaning, change = "classes are counted from 1", f"v - 1 if v else {_VOID}"
            table = {k + 1: k for k in count}
        else:
            meaning = "the classes have other numbers in the files (TABLE = {FOUND: CLASS, ...})"
            change, table = f"TABLE.get(v, {_VOID})", {}
        return (
            f"If {meaning}, build with {label_map_text(table)}, or name them in labels.json of the "
            'folder: {"classes": {"FOUND": CLASS, ...}}, or write other files, e.g. with Pillow: '
            f"Image.open(OLD).point(lambda v: {change}).save(NEW)"
        )


def renumbered_reason(pairs: npt.NDArray[np.int64]) -> str:
    """Return why a net seems to call the classes by other numbers than the labels; empty if not.

    Args:
        pairs: pixels by true class (row) and said class; what else is said is further right.
    """
    pairs = pairs[:, : len(pairs)]
    rows = np.flatnonzero(pairs.sum(1))
    said = pairs[rows].argmax(1)
    share = pairs / max(1, pairs.sum())
    gained = share[rows, said].sum() - np.trace(share)
    if gained < _MUCH_GAINED or len(set(said)) < len(rows):
        return ""
    table = {int(row): int(k) for row, k in zip(rows, said, strict=True)}
    return (
        f"the net is right in {np.trace(share):.0%} of the pixels, and would be in "
        f"{share[rows, said].sum():.0%} if classes had other numbers: where they are counted from "
        f"1, or are in another order, build with {label_map_text(table)}"
    )


def label_map_text(table: Mapping[int, int]) -> str:
    """Return the flag that says which class a number in the files is of."""
    named = ",".join(f"{found}={k}" for found, k in table.items()) or "FOUND=CLASS,..."
    return f"--label-map {named} (label_map=)"


def _listed(classes: npt.NDArray[np.intp]) -> str:
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    return ", ".join(map(str, classes[:_SHOWN])) + more
