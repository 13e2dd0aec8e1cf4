"""A walk through a generator's latents: the pictures between seeds, as a GIF or a video."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.runtime.model import Model
from edgevision.runtime.outputs import MARK, picture_mark, refuse_foreign
from edgevision.runtime.tasks.generated import generator_of
from edgevision.runtime.tasks.seeds import Normal, checked_seeds

Images = npt.NDArray[np.uint8]

WALK_SUFFIXES = frozenset({".gif", ".mp4"})
_SHOWN_SIDE = 224


def latent_walk(
    model: Model, seeds: int | Iterable[int], *, steps: int = 16, **given: object
) -> Images:
    """Return pictures on the way from each seed to the next, and from the last to the first.

    Between two latents the weights cos and sin of one angle keep the numbers standard normal, as
    their squares add up to 1. All other inputs stay those of the first seed.

    Args:
        model: a generator.
        seeds: where the walk comes by.
        steps: pictures from one seed to the next.
        given: what shall not come from the seeds, by input name.

    Returns:
        `uint8[seeds * steps, H, W, C]`, host.

    Raises:
        ValueError: there is no seed, one is out of range, or `steps` is below 1.
        FrameError: the model is no generator, or a given value does not fit its input.
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1")
    task = generator_of(model.task, model.manifest)
    stops = checked_seeds(seeds)
    stream, latent = next((i, x) for i, x in enumerate(task.inputs) if isinstance(x, Normal))
    here = latent.drawn(stops, stream).astype(np.float64)
    there = np.roll(here, -1, axis=0)
    angles = np.linspace(0, np.pi / 2, steps, endpoint=False)
    way = np.stack([np.cos(a) * here + np.sin(a) * there for a in angles], axis=1)
    latents = {latent.name: way.reshape(-1, *latent.shape).astype(np.float32)}
    return model.generate([stops[0]] * (len(stops) * steps), **latents, **given).images


def save_animation(
    images: Images,
    path: str | os.PathLike[str],
    *,
    frames_per_s: int = 16,
    force: bool = False,
) -> Path:
    """Write pictures as an endless GIF or an MP4, small ones enlarged by a whole number.

    Args:
        images: `uint8[N, H, W, C]`, C being 1 or 3 (RGB).
        path: ends in .gif or .mp4.
        frames_per_s: pictures a second.
        force: replace a file that edgevision did not make.

    Raises:
        FileReadError: there is such a file.
        ValueError: the path has another ending.
        OSError: the file cannot be written.
        MissingDependencyError: Pillow (GIF) or PyAV (MP4) is not installed.
    """
    path = Path(path)
    if path.suffix not in WALK_SUFFIXES:
        raise ValueError(f"{path}: got '{path.suffix}', expected .gif or .mp4")
    refuse_foreign([path], force=force)
    factor = -(-_SHOWN_SIDE // max(images.shape[1:3]))
    shown = images.repeat(factor, axis=1).repeat(factor, axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        image = require("PIL.Image", extra="media")
        frames = [image.fromarray(x[..., 0] if x.shape[-1] == 1 else x) for x in shown]
        duration_ms = round(1000 / frames_per_s)
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0,
            **picture_mark(path),
        )  # fmt: skip
    else:
        _save_video(np.broadcast_to(shown, (*shown.shape[:3], 3)), path, frames_per_s)
    return path


def _save_video(frames: Images, path: Path, frames_per_s: int) -> None:
    av = require("av", extra="media")
    # The codec halves the colours' resolution, so sides are even.
    height, width = (side - side % 2 for side in frames.shape[1:3])
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = MARK
        stream = container.add_stream("h264", rate=Fraction(frames_per_s))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames[:, :height, :width]:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
