"""Measurements as one HTML page that needs nothing beside it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.bench.facts import facts
from edgevision.bench.measure import Measurement
from edgevision.bundle.printable import printable
from edgevision.tasks.outputs import page, refuse_foreign

_COLORS = ("#2f6fb2", "#c8553d", "#3a8f5c", "#8a5fb0")
_STAGE_COLORS = ("#b8b8b8", "#7fb2d9", "#2f6fb2", "#9cc9a8", "#d9b36c")


def write_html(
    measurements: Sequence[Measurement], path: str | os.PathLike[str], *, force: bool = False
) -> Path:
    """Write the page; returns its path.

    Raises:
        FileWriteError: there is a file that edgevision did not make; `force` replaces it.
        MissingDependencyError: matplotlib or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    target = Path(path)
    refuse_foreign([target], force=force)
    drawn = [m for m in measurements if m.summary is not None]
    columns = [dict(facts(m)) for m in measurements]
    labels = dict.fromkeys(label for column in columns for label in column)
    text = page(
        "edgevision.bench",
        "report.html.jinja",
        extra="bench",
        measurements=measurements,
        colors=_COLORS,
        rows=[(label, [column.get(label, "") for column in columns]) for label in labels],
        drawn=drawn,
        histogram=_svg(_histogram, drawn),
        shares=_svg(_shares, drawn),
        timelines=[_svg(_timeline, [m], color=i) for i, m in enumerate(drawn)],
        stages=_svg(_stages, drawn),
    )
    target.write_text(text, "utf-8")
    return target


def _svg(draw: Any, measurements: Sequence[Measurement], **options: Any) -> str:
    """Return a drawing as SVG text that may stand inside a page."""
    matplotlib = require("matplotlib", extra="bench")
    figure_class = require("matplotlib.figure", extra="bench").Figure
    # Text stays text: it can be read out, and found. A fixed salt keeps the file the same.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgevision"}):
        figure = figure_class(figsize=(5.0, 2.6), layout="constrained")
        draw(figure, measurements, **options)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]


def _histogram(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draw how many frames took how long, but for the slowest half percent."""
    axis = _axis(figure)
    every = np.concatenate([m.trace.latencies_ms for m in measurements] or [np.zeros(1)])
    low, high = np.percentile(every, [0, 99.5])
    edges = np.linspace(low, max(high, low * 1.01 + 1e-6), 40)
    for measurement, color in zip(measurements, _COLORS, strict=False):
        axis.hist(measurement.trace.latencies_ms, bins=edges, color=color, alpha=0.65)
    axis.set(xlabel="latency, ms", ylabel="frames")


def _shares(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draw which share of the frames was done by when, the slowest included."""
    axis = _axis(figure)
    for measurement, color in zip(measurements, _COLORS, strict=False):
        spans = np.sort(measurement.trace.latencies_ms)
        axis.plot(spans, np.arange(1, len(spans) + 1) / len(spans), color=color, drawstyle="steps")
    axis.set(xlabel="latency, ms", ylabel="share done by then")


def _timeline(figure: Any, measurements: Sequence[Measurement], *, color: int = 0) -> None:
    """Draw each answer over time, so that drift, throttling and stalls show."""
    (measurement,) = measurements
    axis = _axis(figure)
    trace = measurement.trace
    seconds = (trace.due_ns[trace.answered] - trace.due_ns[0]) / 1e9
    axis.plot(
        seconds,
        trace.latencies_ms,
        ".",
        markersize=2,
        color=_COLORS[color % len(_COLORS)],
        rasterized=len(seconds) > 3000,
    )
    if (due_by_ms := measurement.settings.due_by_ms) is not None:
        axis.axhline(due_by_ms, color="#c8553d", linewidth=0.8)
    axis.set(xlabel="s", ylabel="latency, ms")
    axis.set_ylim(bottom=0)


def _stages(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draw one bar for each measurement, made of its stages' medians."""
    axis = _axis(figure)
    for row, measurement in enumerate(measurements):
        start_ms = 0.0
        stages = measurement.summary.stages_ms if measurement.summary else {}
        for (stage, ms), color in zip(stages.items(), _STAGE_COLORS, strict=False):
            axis.barh(row, ms, left=start_ms, color=color, label=stage if row == 0 else None)
            start_ms += ms
    # A dollar sign would start a formula.
    names = [printable(m.name).replace("$", r"\$") for m in measurements]
    axis.set_yticks(range(len(measurements)), names)
    axis.invert_yaxis()
    axis.set_xlabel("median ms")
    axis.legend(
        ncols=5,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        fontsize=8,
        handlelength=1.0,
        columnspacing=1.0,
    )


def _axis(figure: Any) -> Any:
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    return axis
