"""Feeds for a model: golden samples and calibration, from a folder or drawn by the task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from edgevision.bundle.files import PathLike
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import InsufficientMemoryError
from edgevision.export.adapters.adapter import (
    GraphAdapter,
    ModelAdapter,
    adapter_state,
    first_state,
)
from edgevision.tasks.task import Feeds, get_task

Ranges = Mapping[str, tuple[float, float]]
"""The least and the most that an input may hold, by its name."""

_MAX_CALIBRATION_SAMPLES = 64


def golden_samples(
    adapter: ModelAdapter,
    calibration: PathLike | None,
    evaluate: PathLike | None,
    ranges: Ranges | None = None,
) -> tuple[list[Feeds], str]:
    """Return a few feeds, and whether they are "real" frames, "seeds" or "synthetic".

    Raises:
        ValueError: the task takes no folder, and was given one; a range is of no input.
        FileReadError: the folder or a file in it cannot be read.
        InsufficientMemoryError: an input is larger than memory.
    """
    task = get_task(adapter.task)
    if (calibration or evaluate) and not task.takes_folder:
        raise ValueError("a generator takes seeds, not folders of images: leave them out")
    for folder in (evaluate, calibration):
        if folder is not None:
            found = task.samples(_fed(adapter), adapter.settings(), Path(folder), task.golden_count)
            return _in_a_row(adapter, list(found)), "real"
    try:
        drawn, origin = task.draw(
            _fed(adapter), adapter.settings(), adapter.profiles, task.golden_count, purpose="golden"
        )
    except MemoryError as error:
        given = ", ".join(map(str, adapter.inputs))
        raise InsufficientMemoryError(
            f"no samples of ({given}) fit into memory: {error}"
        ) from error
    own = adapter.ranges if isinstance(adapter, GraphAdapter) else {}
    return _in_a_row(adapter, _ranged(drawn, {**own, **(ranges or {})})), origin


def _fed(adapter: ModelAdapter) -> list[TensorSpec]:
    """Return what a user feeds: no state."""
    state = adapter_state(adapter)
    return [spec for spec in adapter.inputs if spec.name not in state]


def _in_a_row(adapter: ModelAdapter, samples: list[Feeds]) -> list[Feeds]:
    """Return the samples as frames of one stream, each with the state of those before."""
    pairs, state = adapter_state(adapter), dict(first_state(adapter))
    for feeds in samples if pairs else []:
        feeds |= state
        given = adapter.reference(feeds)
        state = {taken: given[name] for taken, name in pairs.items()}
    return samples


def _ranged(samples: list[Feeds], ranges: Ranges) -> list[Feeds]:
    """Draw the inputs that have ends again, evenly between them and both included."""
    if unknown := sorted(ranges.keys() - samples[0].keys()):
        raise ValueError(
            f"ranges: no input is called {', '.join(unknown)}; there are {', '.join(samples[0])}"
        )
    rng = np.random.default_rng(1)
    for feeds in samples:
        for name, (low, high) in ranges.items():
            array = feeds[name]
            if not low <= high:
                raise ValueError(f"ranges: {name}={low}:{high}; the lower end comes first")
            if array.dtype.kind == "f":
                feeds[name] = np.asarray(rng.uniform(low, high, array.shape), array.dtype)
            else:
                drawn = rng.integers(math.ceil(low), math.floor(high), array.shape, endpoint=True)
                feeds[name] = np.asarray(drawn, array.dtype)
    return samples


def calibration_samples(adapter: ModelAdapter, folder: PathLike | None) -> list[Feeds]:
    """Return up to 64 feeds, evenly spread over a folder, or what the task draws itself.

    None for a model that brings its own Q/DQ: it is not calibrated again.

    Raises:
        ValueError: the task needs a folder, and there is none.
        FileReadError: the folder or a file in it cannot be read.
    """
    if isinstance(adapter, GraphAdapter) and adapter.is_quantized:
        return []
    task, count = get_task(adapter.task), _MAX_CALIBRATION_SAMPLES
    settings = adapter.settings()
    if not task.takes_folder:
        drawn, _ = task.draw(
            _fed(adapter), settings, adapter.profiles, count, purpose="calibration"
        )
        return _in_a_row(adapter, drawn)
    if folder is None and _quantises(adapter):
        return []
    if folder is None:
        raise ValueError(
            "INT8 needs frames to calibrate on: give --calibration DIR (calibration= in Python) "
            "with 50 or more typical frames"
        )
    return _in_a_row(adapter, list(task.samples(_fed(adapter), settings, Path(folder), count)))


class _Quantisers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether what runs in the block quantises."""

    found: bool = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.found |= "quantize_per_" in func.name()
        return func(*args, **(kwargs or {}))


def _quantises(adapter: ModelAdapter) -> bool:
    """Whether a module has fake quantisation inside, which only running it shows."""
    (feeds, *_), _ = golden_samples(adapter, None, None)
    with _Quantisers() as quantisers:  # type: ignore[no-untyped-call]
        adapter.reference(feeds)
    return bool(quantisers.found)
