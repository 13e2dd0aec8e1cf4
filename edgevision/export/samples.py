"""Feeds for a model: golden samples and calibration, from files, from seeds, or synthetic."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision._files import open_plain
from edgevision.errors import FileReadError
from edgevision.export.adapter import Array, ModelAdapter
from edgevision.export.generator import BATCHES, ImageGenerator
from edgevision.runtime.evaluate import pictures_of
from edgevision.runtime.frames import read_image, resize
from edgevision.tensors import TensorSpec

Feeds = dict[str, Array]
PathLike = str | os.PathLike[str]

_GOLDEN_SAMPLES, _GOLDEN_CAPTIONS = 3, 8
_MAX_CALIBRATION_SAMPLES = 64
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
_CALIBRATION_SEED = 2**32
"""Far from the small seeds that people ask for and that the golden samples are."""


def golden_samples(
    adapter: ModelAdapter, calibration: PathLike | None, evaluate: PathLike | None
) -> tuple[list[Feeds], str]:
    """Return a few feeds, and whether they are "real" frames, "seeds" or "synthetic".

    Raises:
        ValueError: a generator was given a folder.
        FileReadError: the folder or a file in it cannot be read.
    """
    if isinstance(adapter, ImageGenerator):
        if calibration or evaluate:
            raise ValueError("a generator takes seeds, not folders of images: leave them out")
        return _seeded(adapter, 0, _GOLDEN_SAMPLES), "seeds"
    # A caption is the same or another: of three, one would be a third.
    count = _GOLDEN_CAPTIONS if adapter.task == "caption" else _GOLDEN_SAMPLES
    for folder in (evaluate, calibration):
        if folder is not None:
            return list(_folder_feeds(adapter, folder, count)), "real"
    rng = np.random.default_rng(0)
    return [
        {spec.name: _synthetic(adapter, spec, rng) for spec in adapter.inputs} for _ in range(count)
    ], "synthetic"


def _synthetic(adapter: ModelAdapter, spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = adapter.profiles[spec.name].optimum if spec.is_dynamic else spec.shape
    dtype = spec.dtype.numpy
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def calibration_samples(adapter: ModelAdapter, folder: PathLike | None) -> list[Feeds]:
    """Return up to 64 feeds, evenly spread over a folder; a generator's come from seeds.

    Raises:
        ValueError: there is no folder.
        FileReadError: the folder or a file in it cannot be read.
    """
    if isinstance(adapter, ImageGenerator):
        return _seeded(adapter, _CALIBRATION_SEED, _MAX_CALIBRATION_SAMPLES)
    if folder is None:
        raise ValueError(
            "INT8 needs frames to calibrate on: give --calibration DIR (calibration= in Python) "
            "with 50 or more typical frames"
        )
    return list(_folder_feeds(adapter, folder, _MAX_CALIBRATION_SAMPLES))


def _seeded(adapter: ImageGenerator, first: int, count: int) -> list[Feeds]:
    usual = BATCHES[1]
    return [adapter.drawn(range(first + i * usual, first + (i + 1) * usual)) for i in range(count)]


def _folder_feeds(adapter: ModelAdapter, folder: PathLike, most: int) -> Iterator[Feeds]:
    """Give feeds from at most `most` files of a folder, evenly spread over it."""
    if adapter.task == "tensors":
        yield from _npz_feeds(adapter, Path(folder), most)
        return
    images = pictures_of(folder)
    frame = adapter.inputs[0]
    for path in _spread(images, most):
        pixels = resize(read_image(path), (frame.shape[1], frame.shape[2]))
        yield {frame.name: in_channel_order(adapter, pixels)[np.newaxis]}


def _npz_feeds(adapter: ModelAdapter, folder: Path, most: int) -> Iterator[Feeds]:
    files = sorted(folder.glob("*.npz"))
    if not files:
        names = ", ".join(spec.name for spec in adapter.inputs)
        raise FileReadError(f"{folder}: no .npz file; expected files with the inputs: {names}")
    for path in _spread(files, most):
        try:
            with (
                open_plain(path, max_bytes=_MAX_NPZ_BYTES, follow_links=True) as file,
                zipfile.ZipFile(file) as arrays,
            ):
                feeds = {spec.name: _array(arrays, spec) for spec in adapter.inputs}
        except _NPZ_ERRORS as error:
            raise FileReadError(f"{path}: cannot be read as inputs: {error!s:.400}") from error
        yield feeds


def _array(arrays: zipfile.ZipFile, spec: TensorSpec) -> Array:
    """Read one array of an .npz; nothing is allocated before its header was held against `spec`.

    Raises:
        ValueError: it is another array, or its file is not as long as its header says.
    """
    with arrays.open(f"{spec.name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADER_READERS:
            raise ValueError(f"'{spec.name}' is of .npy's format {version}")
        shape, is_fortran, dtype = _HEADER_READERS[version](member)
        if dtype != spec.dtype.numpy or not spec.accepts(shape):
            raise ValueError(f"'{spec.name}' is {dtype}{list(shape)}, expected {spec}")
        size_bytes = math.prod(shape) * dtype.itemsize
        left_bytes = arrays.getinfo(member.name).file_size - member.tell()
        if size_bytes > _MAX_ARRAY_BYTES or size_bytes != left_bytes:
            raise ValueError(f"'{spec.name}' has {left_bytes} bytes, its header says {size_bytes}")
        data = np.frombuffer(member.read(size_bytes), dtype)
    return data.reshape(shape, order="F" if is_fortran else "C").copy()


def _spread(paths: list[Path], most: int) -> list[Path]:
    if len(paths) <= most:
        return paths
    return [paths[i * len(paths) // most] for i in range(most)]


def in_channel_order(adapter: ModelAdapter, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an RGB frame in the channel order that the graph takes."""
    flipped = adapter.settings().get("channel_order") == "bgr"
    return np.ascontiguousarray(pixels[..., ::-1]) if flipped else pixels
