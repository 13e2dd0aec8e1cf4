"""Two earlier runs of `edgevision bench`, read and set beside each other if they are alike.

Runs at different times differ by the hour, on a shared machine by half, so this gives ratios and no
verdict: `edgevision bench compare` of two bundles gives one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevision.bundle.files import read_plain
from edgevision.bundle.reading import Reader, parse
from edgevision.errors import FileReadError, RunError
from edgevision.machine.environment import unlike

_SAME = ("task", "precision", "device")
_SETTINGS = ("scenario", "fps", "deadline_ms", "slots")
_ALONE_MS = ("mean_ms", "max_ms")
_MAX_BYTES = 16 << 20

Run = Mapping[str, Any]


def read(path: Path) -> list[Run]:
    """Read what `bench --json` wrote.

    Raises:
        FileReadError: it cannot be read, or is something else.
    """
    try:
        payload = parse(read_plain(path, max_bytes=_MAX_BYTES, follow_links=True), has_lines=True)
        if not isinstance(payload, list) or not payload:
            raise ValueError("it lists no run")
        return [_run(run, f"run {number}") for number, run in enumerate(payload, 1)]
    except (OSError, ValueError) as error:
        raise FileReadError(
            f"{path} is not a result of `edgevision bench --json`: {error}"
        ) from error


def _run(value: object, place: str) -> Run:
    """Return a run that has what is compared.

    Raises:
        ValueError: it has not; names the place.
    """
    r = Reader(value, place)
    for key in ("name", *_SAME):
        r.text(key)
    for key in ("settings", "environment"):
        r.mapping(key)
    if r.fields.get("summary") is not None:
        summary = r.inner("summary")
        if "percentiles_ms" in summary.fields:
            points = summary.inner("percentiles_ms")
            for point, ms in points.fields.items():
                _ = ms is None or points.number(point)
        for key in _ALONE_MS:
            _ = summary.fields.get(key) is None or summary.number(key)
    return r.fields


def compared(first: Sequence[Run], second: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the ratios of what both runs told, second over first.

    Raises:
        RunError: they are unlike; names each difference.
    """
    if len(first) != len(second):
        raise RunError(f"unlike runs: {len(first)} bundles against {len(second)}")
    rows = []
    for one, other in zip(first, second, strict=True):
        if found := _differences(one, other):
            raise RunError(
                f"'{one['name']}' and '{other['name']}' must not be compared: {'; '.join(found)}"
            )
        for what, was in _figures(one).items():
            if (now := _figures(other).get(what)) and was:
                name = other["name"]
                rows.append({"name": name, "what": what, "first": was, "second": now,
                             "ratio": now / was})  # fmt: skip
    return rows


def _differences(one: Run, other: Run) -> list[str]:
    found = [f"{k}: {one[k]} against {other[k]}" for k in _SAME if one[k] != other[k]]
    found += [
        f"{k}: {one['settings'].get(k)} against {other['settings'].get(k)}"
        for k in _SETTINGS
        if one["settings"].get(k) != other["settings"].get(k)
    ]
    return found + unlike(one["environment"], other["environment"])


def _figures(run: Run) -> dict[str, float]:
    """Return what was told in ms; None and what is missing are left out."""
    summary = run.get("summary") or {}
    payload = {f"{point}, ms": value for point, value in summary.get("percentiles_ms", {}).items()}
    payload |= {f"{key[:-3]}, ms": summary.get(key) for key in _ALONE_MS}
    return {key: float(value) for key, value in payload.items() if value is not None}
