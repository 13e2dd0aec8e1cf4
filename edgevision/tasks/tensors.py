"""The task of a model without a task: its own tensors in, its own tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import FrameError
from edgevision.tasks.timings import Timings


@dataclass(frozen=True, slots=True)
class TensorsResult:
    """The outputs of one inference.

    Attributes:
        outputs: arrays by name, host; the caller's own copies.
        timings: how long it took.
    """

    outputs: Mapping[str, npt.NDArray[np.generic]]
    timings: Timings


@dataclass(frozen=True, slots=True)
class TensorsTask:
    """Passes tensors through; `inputs` are what the model takes."""

    inputs: tuple[TensorSpec, ...]

    def feeds(self, frame: object) -> Mapping[str, object]:
        """Return the arrays as they are.

        Raises:
            FrameError: it is no dict of arrays.
        """
        if not isinstance(frame, Mapping):
            wanted = ", ".join(str(spec) for spec in self.inputs)
            raise FrameError(f"got {type(frame).__name__}, expected a dict of arrays: {wanted}")
        return frame

    def decode(
        self, outputs: Mapping[str, npt.NDArray[np.generic]], timings: Timings
    ) -> TensorsResult:
        """Return the result of one inference."""
        return TensorsResult(outputs, timings)
