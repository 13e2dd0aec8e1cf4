"""Pictures of a build's reports: what a search measured, and what each layer costs."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgevision._optional import require

if TYPE_CHECKING:
    from edgevision.bundle.layer_report import LayerRow
    from edgevision.export.budget import Outcome

_WIDTH, _HEIGHT = 880, 520
_LEFT, _TOP, _RIGHT, _BOTTOM = 96, 56, 32, 64
_INK, _GREY, _RED, _GREEN, _BLUE = "#222222", "#9a9a9a", "#c0392b", "#1e8449", "#2e6da4"
_TICKS = 5
_ROW, _NAMES, _BAR, _TEXT = 18, 330, 320, 640
_MAX_DB, _MAX_WHY = 60.0, 64


def draw_search(outcome: Outcome) -> bytes:
    """Draw each measured graph's loss against its share of INT8; return PNG bytes."""
    image, draw = _sheet(_WIDTH, _HEIGHT)
    losses = [step.loss for step in outcome.found.steps]
    low = min(0.0, *losses)
    high = max(*losses, outcome.budget, low + 1e-6) * 1.08

    # From the next twentieth below: the points often lie above nine tenths.
    least = min(step.share for step in outcome.found.steps)
    left = max(0.0, math.floor(least * 20 - 0.5) / 20)

    def at(share: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (share - left) / (1 - left) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (loss - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    for tick in range(_TICKS + 1):
        share, loss = left + (1 - left) * tick / _TICKS, low + (high - low) * tick / _TICKS
        x, y = at(share, low)[0], at(left, loss)[1]
        draw.line((x, at(left, low)[1], x, _TOP), fill="#eeeeee")
        draw.line((_LEFT, y, _WIDTH - _RIGHT, y), fill="#eeeeee")
        draw.text((x, at(left, low)[1] + 8), f"{share:.0%}", _INK, _font(13), anchor="ma")
        draw.text((_LEFT - 8, y), f"{loss:.4f}", _INK, _font(13), anchor="rm")
    draw.line((*at(left, outcome.budget), *at(1, outcome.budget)), fill=_RED, width=2)
    x, y = at(left, outcome.budget)
    draw.text((x + 6, y - 4), f"budget {outcome.budget:g}", _RED, _font(13), anchor="ls")
    for step in outcome.found.steps:
        x, y = at(step.share, step.loss)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_GREY)
    best = outcome.found.best
    x, y = at(best.share, best.loss)
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=_GREEN, width=3)
    word = "chosen" if outcome.found.holds else "nearest"
    label = f"{word}: {best.share:.1%} INT8, loss {best.loss:.4f}"
    draw.text((x - 12, y - 12), label, _GREEN, _font(14), anchor="rs")
    title = f"Loss of {outcome.title} on {outcome.samples} samples, each graph a point"
    draw.text((_LEFT, 18), title, _INK, _font(16))
    below = "share of the multiply-accumulates in INT8"
    draw.text(((_LEFT + _WIDTH) / 2, _HEIGHT - 26), below, _INK, _font(14), anchor="ma")
    return _png(image)


def draw_layers(rows: Sequence[LayerRow]) -> bytes:
    """Draw each layer's signal over noise in INT8, its size and why it is wide; PNG bytes."""
    width, height = _NAMES + _BAR + _TEXT, 60 + _ROW * len(rows)
    image, draw = _sheet(width, height)
    draw.text((10, 10), "Signal over noise of each layer in INT8", _INK, _font(16))
    draw.text((_NAMES, 36), f"0 to {_MAX_DB:.0f} dB", _INK, _font(12))
    draw.text((10, 36), "INT8 in blue, wide in red", _INK, _font(12))
    total = max(1, sum(row.macs for row in rows))
    for number, row in enumerate(rows):
        y = 56 + number * _ROW
        color = _BLUE if row.is_int8 else _RED
        name = f"{row.op_type}  {row.node[-32:]}"
        draw.text((_NAMES - 8, y + _ROW / 2), name, _INK, _font(12), anchor="rm")
        length = max(0.0, min(row.snr_db, _MAX_DB)) / _MAX_DB * _BAR
        draw.rectangle((_NAMES, y + 2, _NAMES + length, y + _ROW - 3), fill=color)
        harm = "" if row.harm is None else f", harm {row.harm:.4f}"
        text = f"{row.snr_db:.1f} dB, {row.macs / total:.1%} of MACs{harm}"
        text += f", {row.why[:_MAX_WHY]}" if row.why else ""
        draw.text((_NAMES + _BAR + 8, y + _ROW / 2), text, _INK, _font(12), anchor="lm")
    return _png(image)


def _sheet(width: int, height: int) -> tuple[Any, Any]:
    image = require("PIL.Image", extra="media").new("RGB", (width, height), "white")
    return image, require("PIL.ImageDraw", extra="media").Draw(image)


def _font(size: int) -> Any:
    return require("PIL.ImageFont", extra="media").load_default(size)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
