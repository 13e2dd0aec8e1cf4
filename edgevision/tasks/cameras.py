"""Several cameras on the run side: a frame of each in, a list of results out, whatever the task.

A task knows one frame. Here its graph is shown to it as if it had one, and it answers once for each
camera. See `settings["cameras"]`: a number, or the fewest and the most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import DYNAMIC, Image, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.interop import SeparateArrays
from edgevision.tasks.task import Decoder, Result, Summary
from edgevision.tasks.timings import Timings

R = TypeVar("R", bound=Result)

MAX_CAMERAS = 64
Count = tuple[int, int]
"""The fewest and the most cameras of one call."""


class CameraResults(list[R]):
    """The result of each camera, in the order in which their frames were given.

    Attributes:
        timings: how long it took, all cameras together.
    """

    def __init__(self, results: Sequence[R], timings: Timings) -> None:
        super().__init__(results)
        self.timings = timings

    def summary(self) -> Summary:
        """Return what each camera shows, one behind the other."""
        said = [result.summary() for result in self]
        text = "; ".join(f"{number}: {summary.text}" for number, summary in enumerate(said))
        return Summary(text, {"cameras": [summary.fields for summary in said]})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return each camera's pictures, its number before their ends: ".0.overlay.jpg".

        Args:
            frame: uint8[N, H, W, 3] RGB, what each camera showed.
        """
        return {
            f".{number}{end}": picture
            for number, (result, one) in enumerate(zip(self, frame, strict=True))
            for end, picture in result.pictures(one).items()
        }


@dataclass(frozen=True, slots=True)
class CamerasDecoder(Generic[R]):
    """Turns a frame of each camera into feeds, and outputs into a result of each.

    Attributes:
        one: the decoder of one camera's frame.
        count: the fewest and the most cameras.
    """

    one: Decoder[R]
    count: Count

    @property
    def camera(self) -> CameraFrame:
        """The frame that each camera gives."""
        camera = self.one.camera
        assert camera is not None  # `decoder_from` has checked
        return camera

    def feeds(self, frames: Any) -> Mapping[str, object]:
        """Return the frames as the graph takes them.

        Args:
            frames: one array with the cameras first, such as `uint8[N, H, W, 3]`; or a list of N
                frames, each what a model of one camera takes, in buffers of their own. They are
                copied straight to where the engine reads them.

        Raises:
            FrameError: there are too few or too many, or one is not a frame.
        """
        name = self.camera.name
        if isinstance(frames, list | tuple):
            self._check_count(len(frames))
            return {name: SeparateArrays(tuple(map(self._frame, range(len(frames)), frames)))}
        shape = tuple(getattr(frames, "shape", ()))
        if not shape or isinstance(frames, Mapping):
            raise FrameError(
                f"got {type(frames).__name__}, expected a list of {self._expected()} frames, one "
                "for each camera, or one array with the cameras first"
            )
        expected = self.camera.layout.shape
        is_one = shape in (expected, (1, *expected)) and len(shape) == len(expected)
        if is_one:
            raise FrameError(
                f"frame: got one of {list(shape)}, and the model takes {self._expected()} cameras' "
                "frames in one call: give a list, [frame, ...]"
            )
        self._check_count(shape[0])
        if shape[1:] == expected and hasattr(frames, "__cuda_array_interface__"):
            return {name: frames}
        if type(frames) is not np.ndarray or shape[1:] != expected or frames.dtype != np.uint8:
            return {name: SeparateArrays(tuple(map(self._frame, range(shape[0]), frames)))}
        return {name: self.camera.layout.view(frames)}

    def decode(
        self, outputs: Mapping[str, npt.NDArray[np.generic]], timings: Timings
    ) -> CameraResults[R]:
        """Return the results of one inference.

        Raises:
            FrameError: the engine gave what cannot be.
        """
        counts = {len(array) for array in outputs.values()}
        if len(counts) != 1:
            raise FrameError(f"the engine gave outputs of {sorted(counts)} cameras in one call")
        return CameraResults(
            [
                self.one.decode({k: v[i : i + 1] for k, v in outputs.items()}, timings)
                for i in range(counts.pop())
            ],
            timings,
        )

    def _frame(self, number: int, frame: object) -> Any:
        try:
            (found,) = self.one.feeds(frame).values()
        except FrameError as error:
            raise FrameError(f"camera {number}: {error}") from error
        return found

    def _check_count(self, found: int) -> None:
        least, most = self.count
        if not least <= found <= most:
            raise FrameError(
                f"got frames of {found} cameras, and the model takes {self._expected()}. Give "
                "those, or build it with cameras= for as many"
            )

    def _expected(self) -> str:
        least, most = self.count
        return f"{least} to {most}" if least != most else str(most)


def cameras_decoder(decoder: object) -> CamerasDecoder[Any] | None:
    """Return the decoder if it is of several cameras, else None."""
    return decoder if isinstance(decoder, CamerasDecoder) else None


def camera_count(settings: Settings) -> Count | None:
    """Return how many cameras a model takes in one call; None for a model of one frame.

    Raises:
        BundleFormatError: the settings say something else.
    """
    given = settings.get("cameras")
    if given is None:
        return None
    ends = given if isinstance(given, list) else [given, given]
    if len(ends) == 2 and all(type(n) is int for n in ends):
        least, most = ends
        assert isinstance(least, int)
        assert isinstance(most, int)
        if 1 <= least <= most <= MAX_CAMERAS:
            return least, most
    raise BundleFormatError(
        f"cameras: got {given!r:.60}, expected a number or the fewest and the most, 1 to "
        f"{MAX_CAMERAS}"
    )


def one_camera_stage(stage: Stage, count: Count) -> Stage:
    """Return a stage as if it took one camera's frame.

    Raises:
        BundleFormatError: its tensors are not of so many cameras.
    """
    least, most = count
    first = most if least == most else DYNAMIC
    for spec in (*stage.inputs, *stage.outputs):
        if not spec.shape or spec.shape[0] != first:
            raise BundleFormatError(
                f"stage '{stage.name}': {spec} is not of {least} to {most} cameras"
            )
    for name in (spec.name for spec in stage.inputs if spec.is_dynamic):
        profile = stage.profiles.get(name)
        if profile is None or (profile.minimum[0], profile.maximum[0]) != count:
            raise BundleFormatError(
                f"stage '{stage.name}': the profile of '{name}' is not of {least} to {most} cameras"
            )
    return replace(
        stage,
        inputs=tuple(map(of_one_camera, stage.inputs)),
        outputs=tuple(map(of_one_camera, stage.outputs)),
        profiles={},
    )


def of_one_camera(spec: TensorSpec) -> TensorSpec:
    """Return the description of a tensor of all cameras as it is of one."""
    return spec.with_shape((1, *spec.shape[1:]))
