"""A generator's pictures as files: a grid of seeds, or a walk through the latents between them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.runtime.model import Model
from edgevision.tasks.outputs import MARK, picture_mark, refuse_foreign
from edgevision.tasks.seeds import SEED_LIMIT, Normal, checked_seeds

Images = npt.NDArray[np.uint8]

WALK_SUFFIXES = frozenset({".gif", ".mp4"})
_SHOWN_SIDE = 224


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """How many pictures were made, at what rate, drawing their numbers included."""

    count: int
    batch: int
    images_per_s: float


def make_pictures(
    model: Model[Any],
    seed: int,
    count: int,
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> GenerationSummary:
    """Make the pictures of `count` seeds from `seed` on.

    A path `out` that ends in .gif or .mp4 becomes a walk through the seeds, any other their grid;
    `force` replaces a file there that edgevision did not make.

    Raises:
        FileReadError: there is such a file.
        ValueError: `count` is below 1, or a seed is out of range.
        WrongTaskError: the model is not a generator.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1 picture")
    checked_seeds(seed)
    if seed + count > SEED_LIMIT:
        raise ValueError(f"seeds: {seed} and the {count - 1} after it pass 2**64 - 1")
    if out is not None:
        refuse_foreign([Path(out)], force=force)
    seeds = range(seed, seed + count)
    batch = min(count, model.generator().max_batch)
    model.generate(seeds[:batch])  # memory is allocated in the first run of a batch size
    start_s = perf_counter()
    result = model.generate(seeds)
    rate = count / (perf_counter() - start_s)
    if out is not None and Path(out).suffix in WALK_SUFFIXES:
        save_animation(latent_walk(model, seeds), out, force=force)
    elif out is not None:
        result.save(out, force=force)
    return GenerationSummary(count, batch, rate)


def latent_walk(
    model: Model[Any], seeds: int | Iterable[int], *, steps: int = 16, **given: object
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
        WrongTaskError: the model is not a generator.
        FrameError: a given value does not fit its input.
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1")
    decoder = model.generator()
    stops = checked_seeds(seeds)
    stream, latent = next((i, x) for i, x in enumerate(decoder.inputs) if isinstance(x, Normal))
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
