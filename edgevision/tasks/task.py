"""What an answer is: the Task, and the registry of those there are.

A task is three files of one name: `tasks/NAME.py` (this class), `export/adapters/NAME.py` (how a
model becomes its graph) and, where it has a metric, `metrics/NAME.py` (how a folder is scored).
Whoever needs to know something of a task asks it here; nobody else tells tasks apart by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Manifest, Settings, Stage
from edgevision.bundle.tensors import Arrays, Image, Profiles, TensorSpec
from edgevision.errors import BundleFormatError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.proof import Proof
from edgevision.tasks.timings import Timings

Feeds = dict[str, npt.NDArray[np.generic]]
Read = Callable[[str], bytes]
"""From a path inside the bundle to the file's bytes."""

_NAMES = (
    "semantic",
    "instance",
    "caption",
    "classification",
    "depth",
    "detection",
    "generated",
    "multitask",
    "tensors",
)

# A vocabulary is the largest of what a task keeps beside its graphs.
_MAX_FILE_BYTES = 16 << 20

R = TypeVar("R", bound="Result")
R_co = TypeVar("R_co", bound="Result", covariant=True)


@dataclass(frozen=True, slots=True)
class Headline:
    """The figure by which every gate judges a model of a task.

    Attributes:
        name: as the scores of the task call it, e.g. "mIoU".
        max_loss: how much worse than its reference a form or an engine may be.
        is_higher_better: whether more of it is better.
    """

    name: str
    max_loss: float
    is_higher_better: bool = True

    def loss(self, before: float, after: float) -> float:
        """Return how much worse `after` is than `before`; below 0 where it is better."""
        return before - after if self.is_higher_better else after - before


@dataclass(frozen=True, slots=True)
class Summary:
    """An answer in a line for people, and as JSON fields for machines."""

    text: str
    fields: dict[str, object]


class Result(Protocol):
    """The answer to one call; its arrays are the caller's own."""

    @property
    def timings(self) -> Timings:
        """How long it took."""

    def summary(self) -> Summary:
        """Return the answer in words."""

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return what is worth looking at, by the end of its file's name, e.g. ".overlay.jpg".

        Args:
            frame: uint8[H, W, 3] RGB, the frame that was run.

        Raises:
            FrameError: `frame` is not of the size that was run.
        """


class Decoder(Protocol[R_co]):
    """One bundle's way from what a user gives to feeds, and from outputs to a result.

    Immutable, and shared by threads.
    """

    @property
    def camera(self) -> CameraFrame | None:
        """The frame that the graph takes; None for a model that takes something else."""

    def feeds(self, frame: Any) -> Mapping[str, object]:
        """Return what the session is fed, views where it can be.

        Raises:
            FrameError: it is not what the model takes.
        """

    def decode(self, outputs: Arrays, timings: Timings) -> R_co:
        """Return the result of one inference.

        Raises:
            FrameError: the engine gave what cannot be.
        """


class Task(Proof, Generic[R]):
    """One kind of answer; the base is what most tasks share.

    Attributes:
        name: what manifests and the command line call it.
        headline: the figure that gates use; None for a task without a metric.
        golden_count: how many samples prove a graph.
        takes_folder: whether samples come from a folder; else the task draws its own.
        picture_endings: every key of its results' `pictures`.
        stage_proof: how one of several stages is held against its reference.
    """

    name: str
    headline: Headline | None = None
    golden_count: int = 3
    takes_folder: bool = True
    picture_endings: tuple[str, ...] = ()
    stage_proof: Proof = Proof()

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> Decoder[R]:
        """Return the decoder of one bundle.

        Args:
            settings: the task's own, from the manifest; hostile until checked.
            stages: the graphs.
            read: gives the bundle's files under `task/`.

        Raises:
            BundleFormatError: they are not this task's, or do not fit the graphs.
            MissingDependencyError: a library is not installed.
        """
        raise NotImplementedError

    def samples(
        self, inputs: Sequence[TensorSpec], settings: Settings, folder: Path, count: int
    ) -> Iterator[Feeds]:
        """Give feeds from at most `count` files of `folder`, evenly spread over it.

        Raises:
            FileReadError: the folder or a file in it cannot be read.
        """
        raise NotImplementedError

    def draw(
        self,
        inputs: Sequence[TensorSpec],
        settings: Settings,
        profiles: Profiles,
        count: int,
        *,
        purpose: str,
    ) -> tuple[list[Feeds], str]:
        """Return feeds without a folder, and what they are called in the provenance.

        Args:
            inputs: what goes in.
            settings: the task's own.
            profiles: bounds of the dynamic inputs.
            count: how many.
            purpose: "golden" or "calibration"; the same numbers are never drawn for both.
        """
        rng = np.random.default_rng(0)
        return [
            {spec.name: _random(spec, profiles, rng) for spec in inputs} for _ in range(count)
        ], "synthetic"

    def masks(self, result: R) -> dict[str, npt.NDArray[Any]]:
        """Return what a result says of pixels, by the name of its column in files of answers.

        Each is uint8[H, W] or uint16[H, W] numbers, or bool[N, H, W] objects.
        """
        return {}

    def apart(self, before: R, after: R) -> float:
        """Return how far two answers to a frame are apart, 0 to 1, as `difference` does."""
        raise NotImplementedError

    def difference(self, frame: Image, before: R, after: R) -> tuple[float, Image]:
        """Return how far two answers to a frame are apart, 0 to 1, and a picture of it."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.name


def task_names() -> tuple[str, ...]:
    """Return the name of every task there is."""
    return _NAMES


def get_task(name: str) -> Task[Any]:
    """Return a task by its name.

    Raises:
        BundleFormatError: this version does not know it.
    """
    if name not in _NAMES:  # the name may come from a stranger's manifest
        raise BundleFormatError(
            f"the bundle's task is '{name:.64}', this edgevision knows {', '.join(_NAMES)}. "
            "Install a newer edgevision."
        )
    found: Task[Any] = importlib.import_module(f"edgevision.tasks.{name}").TASK
    return found


def bounded_read(manifest: Manifest, read: Read) -> Read:
    """Return `read` for a task's own files, which are small."""
    sizes = {entry.path: entry.size_bytes for entry in manifest.files}

    def bounded(path: str) -> bytes:
        if sizes.get(path, 0) > _MAX_FILE_BYTES:
            raise BundleFormatError(
                f"'{path}' has {sizes[path]} bytes, at most {_MAX_FILE_BYTES} are read"
            )
        return read(path)

    return bounded


def _random(
    spec: TensorSpec, profiles: Profiles, rng: np.random.Generator
) -> npt.NDArray[np.generic]:
    shape = profiles[spec.name].optimum if spec.is_dynamic else spec.shape
    dtype = spec.dtype.numpy
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape), dtype)  # of no axes numpy draws a number
    return np.asarray(rng.integers(0, 256 if dtype == np.uint8 else 2, shape), dtype)
