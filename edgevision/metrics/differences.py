"""A picture of where two forms of a model differ most."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.files import PathLike
from edgevision.errors import FileReadError
from edgevision.metrics.metric import Predict
from edgevision.progress import Progress
from edgevision.tasks.frames import read_image, resize, spread
from edgevision.tasks.labelled import pictures_in
from edgevision.tasks.task import Task

_SHOWN = 3
_LOOKED_AT = 24


def draw_differences(
    task: Task[Any],
    forms: Mapping[str, Predict],
    folder: PathLike,
    size: tuple[int, int],
    progress: Progress,
) -> bytes:
    """Draw the pictures where the first and the last form differ most; return PNG bytes."""
    first, *_, last = forms.values()
    paths = spread(pictures_in(folder), _LOOKED_AT)
    rows: list[tuple[float, npt.NDArray[np.uint8]]] = []
    for done, path in enumerate(paths):
        progress("drawing differences", done, len(paths))
        try:
            frame = resize(read_image(path), size)
        except FileReadError:  # of which the score has told
            continue
        rows.append(task.difference(frame, first(frame), last(frame)))
    rows.sort(key=lambda pair: -pair[0])
    buffer = io.BytesIO()
    sheet = np.concatenate([row for _, row in rows[:_SHOWN]])
    require("PIL.Image", extra="media").fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()
