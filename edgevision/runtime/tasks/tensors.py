"""The task of a model without a task: its own tensors in, its own tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.runtime.timing import Timings


@dataclass(frozen=True, slots=True)
class TensorsResult:
    """The outputs of one inference.

    Attributes:
        outputs: arrays by name, host; the caller's own copies.
        timings: how long it took.
    """

    outputs: Mapping[str, npt.NDArray[np.generic]]
    timings: Timings
