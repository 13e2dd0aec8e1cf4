"""Generated pictures on the run side: seeds, or latents of one's own, in; pictures out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevision._optional import require
from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import Array, Arrays, DType, Image, Profiles, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.frames import IMAGE_SUFFIXES
from edgevision.tasks.outputs import picture_mark, refuse_foreign
from edgevision.tasks.proof import Bars
from edgevision.tasks.seeds import GeneratorInput, Label, generator_input
from edgevision.tasks.task import Feeds, Read, Summary, Task
from edgevision.tasks.timings import Timings

# Levels of 255 that pixels of a made picture may be off, and the share that may be further off.
_LEVELS = Bars(1.0, 2.0, 16.0)
_SHARES = Bars(0.0, 2e-3, 0.02)
# Far from the small seeds that people ask for and that the golden samples are.
_CALIBRATION_SEED = 2**32


@dataclass(frozen=True, slots=True)
class GeneratedResult:
    """Pictures, and the seeds that they were made of.

    Attributes:
        images: uint8[N, H, W, C], C being 1 or 3 (RGB), host; the caller's own copy.
        seeds: one for each picture; empty where latents were given without seeds.
        timings: how long it took, all batches together.
    """

    images: Image
    seeds: tuple[int, ...]
    timings: Timings

    def grid(self, *, columns: int | None = None) -> Image:
        """Return all pictures in rows as one, uint8[rows * H, columns * W, C]; the rest is black.

        Args:
            columns: pictures a row; by default as many as make the grid square.

        Raises:
            ValueError: `columns` is below 1.
        """
        count, height, width, channels = self.images.shape
        columns = math.ceil(math.sqrt(count)) if columns is None else columns
        if columns < 1:
            raise ValueError(f"columns: got {columns}, expected at least 1")
        rows = math.ceil(count / columns)
        cells = np.zeros((rows * columns, height, width, channels), np.uint8)
        cells[:count] = self.images
        grid = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
        return grid.reshape(rows * height, columns * width, channels)

    def summary(self) -> Summary:
        """Return how many pictures there are."""
        count = len(self.images)
        return Summary(f"{count} pictures", {"count": count, "seeds": list(self.seeds)})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the grid; there was no frame."""
        return {".grid.png": self.grid()}

    def save(
        self, path: str | os.PathLike[str], *, columns: int | None = None, force: bool = False
    ) -> Path:
        """Write the grid as one picture, in the format of the path's ending.

        Raises:
            FileWriteError: there is a file that edgevision did not make; `force` replaces it.
            ValueError: the ending is not a picture's.
            OSError: the file cannot be written.
            MissingDependencyError: Pillow is not installed.
        """
        image = require("PIL.Image", extra="media")
        path = Path(path)
        if path.suffix not in IMAGE_SUFFIXES:
            raise ValueError(f"{path}: got '{path.suffix}', expected an ending such as .png")
        refuse_foreign([path], force=force)
        grid = self.grid(columns=columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
        picture.save(path, **picture_mark(path))
        return path


@dataclass(frozen=True, slots=True)
class GeneratedDecoder:
    """Turns seeds and arrays into feeds, and outputs into `GeneratedResult`.

    Attributes:
        inputs: what the generator takes, in order.
        max_batch: most pictures of one call of the engine.
    """

    inputs: tuple[GeneratorInput, ...]
    max_batch: int

    @property
    def camera(self) -> None:
        """Return None: seeds go in, not frames."""

    def feeds(self, frame: object) -> Mapping[str, object]:
        """Return a dict of arrays as it is; numpy arrays have their values checked.

        Raises:
            FrameError: it is not a dict of arrays, or holds NaN or a label without a class.
        """
        if not isinstance(frame, Mapping):
            wanted = ", ".join(str(item.spec) for item in self.inputs)
            raise FrameError(
                f"got {type(frame).__name__}, expected a dict of arrays: {wanted}. Pictures of "
                "seeds come from model.generate(seeds)."
            )
        for item in self.inputs:
            values = frame.get(item.name)
            if isinstance(values, np.ndarray) and values.size and _is_of_kind(item, values):
                item.check(values)
        return frame

    def batches(
        self, seeds: Sequence[int], given: Mapping[str, object]
    ) -> Iterator[dict[str, Array]]:
        """Give the feeds of `seeds`, at most `max_batch` at a time.

        Args:
            seeds: checked ones.
            given: values that stand in for drawn ones, by input name: for all pictures, or one for
                each.

        Raises:
            FrameError: a value is for no input, or has the wrong shape or content.
        """
        known = [item.name for item in self.inputs]
        if unknown := sorted(set(given) - set(known)):
            raise FrameError(f"inputs: got {unknown}, this generator takes {known}")
        fixed = {
            item.name: _fitted(item, given[item.name], len(seeds))
            for item in self.inputs
            if item.name in given
        }
        for start in range(0, len(seeds), self.max_batch):
            part = tuple(seeds[start : start + self.max_batch])
            yield {
                item.name: fixed[item.name][start : start + self.max_batch]
                if item.name in fixed
                else item.drawn(part, stream)
                for stream, item in enumerate(self.inputs)
            }

    def join(self, parts: Sequence[GeneratedResult], seeds: tuple[int, ...]) -> GeneratedResult:
        """Return the batches of one call as one result, their times added up."""
        times = [part.timings for part in parts]
        return GeneratedResult(
            np.concatenate([part.images for part in parts]),
            seeds,
            Timings(
                sum(t.copy_in_ms for t in times),
                sum(t.compute_ms for t in times),
                sum(t.copy_out_ms for t in times),
                sum(t.wait_ms for t in times),
            ),
        )

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> GeneratedResult:
        """Return the result of one inference."""
        (images,) = outputs.values()
        return GeneratedResult(images.astype(np.uint8, copy=False), (), timings)


class GeneratedTask(Task[GeneratedResult]):
    """Pictures made of random numbers; held against their reference in levels of 255."""

    name = "generated"
    takes_folder = False
    # What the first layer loses, all others paint; what the last one does stands in the picture. Of
    # gan-digits' 5,000 pictures 99.6 % keep their label so, with 88 % of the multiplications INT8;
    # 98.6 % with all layers.
    wide_ends = True

    def decoder(
        self, settings: Settings, stages: tuple[Stage, ...], read: Read
    ) -> GeneratedDecoder:
        """Return the decoder of one bundle; see `Task`."""
        if len(stages) != 1 or len(stages[0].outputs) != 1:
            raise BundleFormatError("task generated: expected one stage with one output")
        (stage,), inputs = stages, _inputs(settings)
        described = tuple(item.spec for item in inputs)
        if (
            not inputs
            or described != stage.inputs
            or set(stage.profiles) != {spec.name for spec in described}
        ):
            raise BundleFormatError(
                f"task generated: the settings name {', '.join(map(str, described))}; the graph "
                f"takes {', '.join(map(str, stage.inputs))}, each with a profile"
            )
        images = stage.outputs[0]
        if images.dtype is not DType.UINT8 or len(images.shape) != 4 or images.shape[-1] not in (
            1, 3,
        ):  # fmt: skip
            raise BundleFormatError(
                f"task generated: expected uint8[?, H, W, 1 or 3], got {images}"
            )
        return GeneratedDecoder(inputs, min(p.maximum[0] for p in stage.profiles.values()))

    def draw(
        self,
        inputs: Sequence[TensorSpec],
        settings: Settings,
        profiles: Profiles,
        count: int,
        *,
        purpose: str,
    ) -> tuple[list[Feeds], str]:
        """Return the numbers of seeds, a usual batch each."""
        taken = _inputs(settings)
        batch = min(profile.optimum[0] for profile in profiles.values())
        first = _CALIBRATION_SEED if purpose == "calibration" else 0
        return [
            draw_inputs(taken, range(start, start + batch))
            for start in range(first, first + count * batch, batch)
        ], "seeds"

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return how many levels pixels may be off, and the share that may be further off."""
        return {name: Tolerance(_LEVELS[form], _SHARES[form]) for name in golden}


def draw_inputs(inputs: Sequence[GeneratorInput], seeds: Sequence[int]) -> dict[str, Array]:
    """Return the feeds that seeds stand for."""
    return {item.name: item.drawn(tuple(seeds), stream) for stream, item in enumerate(inputs)}


def _inputs(settings: Settings) -> tuple[GeneratorInput, ...]:
    """Read what a generator takes out of a manifest; BundleFormatError if it says no such thing."""
    listed = settings.get("inputs")
    if not isinstance(listed, list):
        raise BundleFormatError("task generated: expected a list of inputs")
    try:
        return tuple(generator_input(item) for item in listed)
    except ValueError as error:
        raise BundleFormatError(f"task generated: {error}") from error


def _fitted(item: GeneratorInput, value: object, count: int) -> Array:
    """Return `value` as the graph's dtype, once for each of `count` pictures."""
    spec = item.spec
    values = np.asarray(value)
    if not _is_of_kind(item, values):
        raise FrameError(f"input '{item.name}': got {values.dtype}, expected {spec}")
    one = spec.shape[1:]
    if values.ndim <= 1 and one == (1,):
        values = values.reshape(-1, 1)
    if values.shape in (one, (1, *one)):
        values = np.broadcast_to(values, (count, *one))
    if values.shape != (count, *one):
        raise FrameError(
            f"input '{item.name}': got {values.dtype}{list(values.shape)}, expected {spec} with "
            f"one row for each of {count} seeds, or one for all"
        )
    item.check(values)
    return np.ascontiguousarray(values, spec.dtype.numpy)


def _is_of_kind(item: GeneratorInput, values: Array) -> bool:
    return values.dtype.kind in ("iu" if isinstance(item, Label) else "iuf")


TASK = GeneratedTask()
