"""A picture of where two forms of a model differ most."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.metrics.evaluate import pictures_of
from edgevision.metrics.score import Predict, Result
from edgevision.progress import Progress
from edgevision.tasks.caption import CaptionResult
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.instance import InstanceResult
from edgevision.tasks.semantic import SemanticResult

Image = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]

_SHOWN = 3
_LOOKED_AT = 24
_CAPTION_WIDTH = 640


def draw_differences(
    forms: Mapping[str, Predict], folder: PathLike, size: tuple[int, int], progress: Progress
) -> bytes:
    """Draw the pictures where the first and the last form differ most: both, and where, in red."""
    first, *_, last = forms.values()
    paths = pictures_of(folder)
    rows: list[tuple[float, Image]] = []
    for done, path in enumerate(paths[:: -(-len(paths) // _LOOKED_AT)]):
        progress("drawing differences", done, min(len(paths), _LOOKED_AT))
        frame = resize(read_image(path), size)
        before, after = first(frame), last(frame)
        if isinstance(before, CaptionResult):
            rows.append((float(str(before) != str(after)), _captioned(frame, before, after)))
            continue
        assert not isinstance(after, CaptionResult)
        differs = _pixels(before) != _pixels(after)
        marked = np.repeat((frame.mean(2, keepdims=True) * 0.45).astype(np.uint8), 3, 2)
        marked[differs] = (255, 48, 48)
        row = np.concatenate([before.overlay(frame), after.overlay(frame), marked], axis=1)
        rows.append((float(differs.mean()), row))
    rows.sort(key=lambda pair: -pair[0])
    buffer = io.BytesIO()
    sheet = np.concatenate([row for _, row in rows[:_SHOWN]])
    require("PIL.Image", extra="media").fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _captioned(frame: Image, before: Result, after: Result) -> Image:
    """Return the frame with both captions beneath, the second in red where it differs."""
    images = require("PIL.Image", extra="media")
    font = require("PIL.ImageFont", extra="media").load_default(15)
    canvas = images.new("RGB", (_CAPTION_WIDTH, 300), "white")
    shown = images.fromarray(frame)
    shown.thumbnail((_CAPTION_WIDTH, 250))
    canvas.paste(shown, (0, 0))
    draw = require("PIL.ImageDraw", extra="media").Draw(canvas)
    draw.text((4, 254), str(before), "black", font)
    draw.text((4, 276), str(after), "black" if str(before) == str(after) else "red", font)
    return np.asarray(canvas)


def _pixels(result: SemanticResult | InstanceResult) -> npt.NDArray[np.integer]:
    """Return what each pixel is: its class, and for objects 0 where there is none."""
    if isinstance(result, SemanticResult):
        return result.mask.astype(np.int32)
    sure = result.above(0.5)
    classes = np.zeros(sure.frame_size, np.int32)
    for mask, label in zip(sure.pasted()[::-1], sure.labels[::-1], strict=True):
        classes[mask] = label + 1
    return classes
