"""The task of a model without a task: its own tensors in, its own tensors out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import FileReadError, FrameError
from edgevision.tasks.frames import spread
from edgevision.tasks.task import Feeds, Read, Summary, Task
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

    def summary(self) -> Summary:
        """Return the shape of each output."""
        shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in self.outputs.items()}
        return Summary(", ".join(f"{k} {v}" for k, v in shapes.items()), {"outputs": shapes})

    def pictures(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.uint8]]:
        """Return none: nobody knows what the tensors show."""
        return {}


@dataclass(frozen=True, slots=True)
class TensorsDecoder:
    """Passes tensors through; `inputs` are what the model takes."""

    inputs: tuple[TensorSpec, ...]

    @property
    def camera(self) -> None:
        """Return None: tensors go in, not frames."""

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


class TensorsTask(Task[TensorsResult]):
    """Any tensors, held against their reference element by element."""

    name = "tensors"

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> TensorsDecoder:
        """Return the decoder of one bundle; see `Task`."""
        return TensorsDecoder(stages[0].inputs)

    def samples(
        self, inputs: Sequence[TensorSpec], settings: Settings, folder: Path, count: int
    ) -> Iterator[Feeds]:
        """Give the arrays of at most `count` .npz files of `folder`, keyed by the inputs' names.

        Raises:
            FileReadError: there is none, or one cannot be read.
        """
        files = sorted(folder.glob("*.npz"))
        names = [spec.name for spec in inputs]
        if not files:
            raise FileReadError(
                f"{folder}: no .npz file; expected files with the inputs: {', '.join(names)}"
            )
        for path in spread(files, count):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    yield {name: arrays[name] for name in names}
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise FileReadError(f"{path}: cannot be read as inputs: {error}") from error


TASK = TensorsTask()
