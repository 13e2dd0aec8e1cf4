"""The task of a model without a task: its own tensors in, its own tensors out."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import open_plain
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.tensors import Arrays, TensorSpec
from edgevision.errors import FileReadError, FrameError
from edgevision.tasks.frames import spread
from edgevision.tasks.task import Feeds, Read, Summary, Task
from edgevision.tasks.timings import Timings
from edgevision.tasks.whole import as_a_whole

_MAX_NPZ_BYTES = 4 << 30
_MAX_ARRAY_BYTES = 1 << 30
# What the readers of zip files, their members and numpy's headers raise on damaged bytes.
_NPZ_ERRORS = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
            FrameError: it is not a dict of arrays.
        """
        if type(frame) is not dict and not isinstance(frame, Mapping):
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

    def compare(
        self,
        reference: Arrays,
        candidate: Arrays,
        tolerances: Mapping[str, Tolerance],
        *,
        name: str,
    ) -> list[ParityReport]:
        """Hold each element, and of floats the noise and which class comes first; see `Proof`."""
        found = super().compare(reference, candidate, tolerances, name=name)
        for output, bar in tolerances.items():
            before, after = reference[output], candidate[output]
            if before.dtype.kind == "f":
                found += as_a_whole(before, after, bar, name=f"{name}/{output}")
        return found

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
        if not files:
            names = ", ".join(spec.name for spec in inputs)
            raise FileReadError(f"{folder}: no .npz file; expected files with the inputs: {names}")
        for path in spread(files, count):
            yield read_arrays(path, inputs)[0]

    def labelled(
        self, inputs: Sequence[TensorSpec], folder: Path
    ) -> Iterator[tuple[str, Feeds, Arrays]]:
        """Give each .npz file of `folder`: its name, the inputs in it, and all else as labels.

        Raises:
            FileReadError: there is none, or one cannot be read.
        """
        if not (files := sorted(folder.glob("*.npz"))):
            raise FileReadError(f"{folder}: no .npz file; expected files of inputs and labels")
        for path in files:
            yield path.name, *read_arrays(path, inputs, with_labels=True)


def read_arrays(
    path: Path, inputs: Sequence[TensorSpec], *, with_labels: bool = False
) -> tuple[Feeds, Arrays]:
    """Return the inputs in an .npz file, and, where asked, all else in it as labels.

    Raises:
        FileReadError: it cannot be read, or an input is missing or is not what is expected.
    """
    names = [spec.name for spec in inputs]
    try:
        with (
            open_plain(path, max_bytes=_MAX_NPZ_BYTES, follow_links=True) as file,
            zipfile.ZipFile(file) as arrays,
        ):
            feeds: Feeds = {spec.name: _array(arrays, spec) for spec in inputs}
            there = [name.removesuffix(".npy") for name in arrays.namelist() if with_labels]
            return feeds, {name: _label(arrays, name) for name in there if name not in names}
    except _NPZ_ERRORS as error:
        raise FileReadError(f"{path}: cannot be read as inputs: {error!s:.400}") from error


def _label(arrays: zipfile.ZipFile, name: str) -> npt.NDArray[np.generic]:
    with arrays.open(f"{name}.npy") as member:
        size_bytes = arrays.getinfo(member.name).file_size
        return read_npy(
            member, size_bytes, lambda _, dtype: not dtype.hasobject, f"'{name}'", "numbers"
        )


def _array(arrays: zipfile.ZipFile, spec: TensorSpec) -> npt.NDArray[np.generic]:
    def fits(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        return dtype == spec.dtype.numpy and spec.accepts(shape)

    with arrays.open(f"{spec.name}.npy") as member:
        size_bytes = arrays.getinfo(member.name).file_size
        return read_npy(member, size_bytes, fits, f"'{spec.name}'", spec)


def read_npy(
    file: IO[bytes],
    size_bytes: int,
    fits: Callable[[tuple[int, ...], np.dtype[Any]], bool],
    name: str,
    expected: object,
) -> npt.NDArray[np.generic]:
    """Read an array; nothing is allocated before its header was held against what is expected.

    Args:
        file: an .npy's bytes.
        size_bytes: how many they are.
        fits: whether an array of a shape and a type is what is expected.
        name: of the array, in errors.
        expected: the same, in errors.

    Raises:
        ValueError: it is another array, or the file is not as long as its header says.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADER_READERS:
        raise ValueError(f"{name} is of .npy's format {version}")
    shape, is_fortran, dtype = _HEADER_READERS[version](file)
    if not fits(shape, dtype):
        raise ValueError(f"{name} is {dtype}{list(shape)}, expected {expected}")
    array_bytes = math.prod(shape) * dtype.itemsize
    left_bytes = size_bytes - file.tell()
    if array_bytes > _MAX_ARRAY_BYTES or array_bytes != left_bytes:
        raise ValueError(f"{name} has {left_bytes} bytes, its header says {array_bytes}")
    data = np.frombuffer(file.read(array_bytes), dtype)
    return data.reshape(shape, order="F" if is_fortran else "C").copy()


TASK = TensorsTask()
