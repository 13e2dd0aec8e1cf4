"""Answers to several frames that went through the engine in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from edgevision.errors import FrameError
from edgevision.tasks.camera import Image
from edgevision.tasks.task import Result, Summary
from edgevision.tasks.timings import Timings

R = TypeVar("R", bound=Result)

MOST_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Together(Generic[R]):
    """One result for each frame of a call.

    Attributes:
        results: in the order of the frames.
        timings: how long the call took.
    """

    results: tuple[R, ...]
    timings: Timings

    def summary(self) -> Summary:
        """Return each frame's answer in words."""
        each = [result.summary() for result in self.results]
        return Summary(
            "; ".join(one.text for one in each), {"frames": [one.fields for one in each]}
        )

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return each frame's pictures, its number before the end of their names.

        Args:
            frame: uint8[batch, H, W, 3] RGB, the frames that were run.

        Raises:
            FrameError: `frame` is something else.
        """
        if frame.dtype != np.uint8 or len(frame) != len(self.results):
            raise FrameError(
                f"frames: got {frame.dtype}{list(frame.shape)}, expected the {len(self.results)} "
                "that were run together"
            )
        return {
            f".{number}{ending}": picture
            for number, (one, result) in enumerate(zip(frame, self.results, strict=True))
            for ending, picture in result.pictures(one).items()
        }


def single(result: R | Together[R]) -> R:
    """Return the answer to a frame that was run by itself, or as every frame of a call."""
    return result.results[0] if isinstance(result, Together) else result
