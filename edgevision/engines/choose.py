"""Which of a bundle's precisions a device keeps: the faster one that passes the accuracy gate.

Every precision becomes an engine of its own and is proven as `finish` proves one. What measures
them side by side is handed in, for statistics and worker processes are of a floor above. The
narrower precision must be shown to be faster: in doubt the wider one stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from edgevision.bundle.directory import Bundle
from edgevision.bundle.forms import PRECISIONS
from edgevision.bundle.record import Choice, Record
from edgevision.errors import BuildError, InsufficientMemoryError, ParityError
from edgevision.progress import Progress
from edgevision.tasks.task import Headline

T = TypeVar("T")

UNSETTLED = ("unclear", "too noisy")
"""Verdicts after which the next `finish` measures again."""


class Measured(Protocol):
    """How long a second engine's calls take beside a first one's."""

    @property
    def verdict(self) -> str:
        """Of the second: "faster", "slower", "same", "unclear" or "too noisy"."""

    @property
    def ratio(self) -> float:
        """The second's time for each unit of the first's."""

    @property
    def low(self) -> float:
        """Lower end of the ratio's 99 % interval."""

    @property
    def high(self) -> float:
        """Upper end of it."""

    @property
    def first_us(self) -> float:
        """Median of one call of the first."""


Measure = Callable[[Bundle, str, Path, Path, Progress], Measured]
"""From a bundle, a target, and two folders for `load(engines=)` to how long their calls take."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine set of one precision: its folder of engines, its record, and how long it took."""

    folder: Path
    record: Record
    seconds: Mapping[str, float]
    cached: tuple[str, ...]


def precisions_of(bundle: Bundle) -> tuple[str, str]:
    """Return the two precisions that a bundle's graphs are in, wider first.

    Raises:
        ValueError: it has only one, or several stages, which nothing measures.
    """
    manifest = bundle.manifest
    if len(manifest.stages) != 1:
        raise ValueError("choose: a captioner that streams tokens is not measured here")
    (stage,) = manifest.stages
    found = {manifest.precision, *(other.precision for other in stage.alternatives)}
    known = [precision for precision in PRECISIONS if precision in found]
    if len(known) != 2:
        raise ValueError(
            f"choose: '{bundle.root.name}' holds one graph, in {manifest.precision}: there is "
            "nothing to choose. Build it with both: edgevision build SOURCE --precision int8 "
            "--set choose=true"
        )
    return known[0], known[1]


def choose(
    bundle: Bundle,
    target: str,
    make: Callable[[str, Path], Candidate],
    measure: Measure,
    *,
    headline: Headline | None,
    keep: Callable[[Candidate, Choice], T],
    progress: Progress,
) -> T:
    """Make both engines, measure them, and return what `keep` makes of the better one.

    Args:
        bundle: holds a graph of each of two precisions.
        target: what for.
        make: builds and proves the engine of a precision into a folder.
        measure: see `Measure`.
        headline: the figure that decides where the engines were scored.
        keep: puts the engine where it belongs; called while its files are still there.
        progress: told how far the measuring is.

    Raises:
        ParityError: neither can be built and is fit for use.
        InsufficientMemoryError: there is too little memory to build one.
    """
    wide, narrow = precisions_of(bundle)
    with tempfile.TemporaryDirectory(prefix="edgevision-choice-") as folder:
        made: dict[str, Candidate] = {}
        refused: dict[str, str] = {}
        for precision in (wide, narrow):
            place = Path(folder) / precision / target
            place.mkdir(parents=True, mode=0o755)
            try:
                made[precision] = make(precision, place)
            except InsufficientMemoryError:  # says nothing of the graph: the next try may do
                raise
            except BuildError as error:
                refused[precision] = str(error)
                continue
            if not made[precision].record.passed:
                refused[precision] = made.pop(precision).record.reason
        if not made:
            raise ParityError(
                f"no engine for '{target}' is fit for use: "
                + "; ".join(f"{name}: {why}" for name, why in refused.items())
            )
        found = None
        if not refused:
            engines = [made[name].folder.parent for name in (wide, narrow)]
            found = measure(bundle, target, engines[0], engines[1], progress)
        choice = decide((wide, narrow), made, refused, found, headline)
        return keep(made[choice.precision], choice)


def decide(
    precisions: Sequence[str],
    made: Mapping[str, Candidate],
    refused: Mapping[str, str],
    found: Measured | None,
    headline: Headline | None,
) -> Choice:
    """Return which of two precisions is kept, wider first, and why."""
    wide, narrow = precisions
    figures = {
        f"{name} {figure}": value
        for name, candidate in made.items()
        for figure, value in candidate.record.score.items()
    }
    if found is None:
        (kept,) = made
        (other,) = refused
        return Choice(kept, f"{other} is not fit for use: {refused[other]}", "", figures)
    figures |= {
        f"{wide}_us": found.first_us,
        f"{narrow}_us": found.first_us * found.ratio,
        "ratio": found.ratio,
        "ratio_low": found.low,
        "ratio_high": found.high,
    }
    time = (
        f"{narrow} takes {found.ratio:.3f} of {wide}'s time (99 % interval {found.low:.3f} to "
        f"{found.high:.3f}): {found.verdict}"
    )
    if found.verdict != "faster":
        return Choice(wide, time, found.verdict, figures)
    was, now = (
        made[name].record.score.get(headline.name) if headline else None for name in precisions
    )
    if headline is None or was is None or now is None:
        text = f"{time}; both pass the golden vectors"
        return Choice(narrow, text, found.verdict, figures)
    text = (
        f"{headline.name} is {now:.4f}, {wide}'s {was:.4f}; a loss of {headline.max_loss:g} is "
        "allowed"
    )
    kept = narrow if headline.loss(was, now) <= headline.max_loss else wide
    return Choice(kept, f"{time}; {text}", found.verdict, figures)
