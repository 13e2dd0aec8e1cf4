"""Rows of figures measured side by side: printed, kept as JSON, judged where there is a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.script import record
from edgevision.bench.pairs import Estimate, Rounds


@dataclass(frozen=True)
class Row:
    """What was compared, what was found, and what was asked for, if anything was."""

    name: str
    found: Estimate
    bar: float | None
    median_us: Mapping[str, float]
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether it holds, as far as the noise lets one say."""
        if self.bar is None:
            return True
        return self.found.high >= self.bar if self.at_least else self.found.low <= self.bar

    def __str__(self) -> str:
        sign, mark = (">=" if self.at_least else "<="), ("ok" if self.passed else "MISSED")
        bar = f"{sign} {self.bar:4.2f} {mark:6}" if self.bar is not None else " " * 14
        times = ", ".join(f"{name} {us:.1f} us" for name, us in self.median_us.items())
        found = f"{self.found.value:6.2f} [{self.found.low:5.2f}, {self.found.high:5.2f}]"
        return f"{self.name:42} {found} {bar}  {times}"


def row(
    name: str, found: Estimate, bar: float | None, rounds: Rounds, *, at_least: bool = False
) -> Row:
    """Return a row with the median time of each way of `rounds`."""
    medians = {key: round(rounds.median_us(key), 2) for key in rounds.times_ns}
    return Row(name, found, bar, medians, at_least)


def keep(path: Path, rows: Sequence[Row], *, rounds: int, **more: object) -> None:
    """Write rows, environment and what else there is as JSON."""
    kept = [{**asdict(found), "passed": found.passed} for found in rows]
    record(path, rounds=rounds, rows=kept, **more)
