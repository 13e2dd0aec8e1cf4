"""A generator from the command line: seeds to a file of pictures, and how fast they were made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from edgevision.runtime.model import Model
from edgevision.runtime.outputs import refuse_foreign
from edgevision.runtime.tasks.generated import generator_of
from edgevision.runtime.tasks.seeds import SEED_LIMIT, checked_seeds
from edgevision.runtime.walk import WALK_SUFFIXES, latent_walk, save_animation


@dataclass(frozen=True, slots=True)
class MadeSummary:
    """How many pictures were made, at what rate, drawing their numbers included."""

    count: int
    batch: int
    images_per_s: float


def make_pictures(
    model: Model,
    seed: int,
    count: int,
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> MadeSummary:
    """Make the pictures of `count` seeds from `seed` on.

    A path `out` that ends in .gif or .mp4 becomes a walk through the seeds, any other their grid;
    `force` replaces a file there that edgevision did not make.

    Raises:
        FileReadError: there is such a file.
        ValueError: `count` is below 1, or a seed is out of range.
        FrameError: the model is no generator.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1 picture")
    checked_seeds(seed)
    if seed + count > SEED_LIMIT:
        raise ValueError(f"seeds: {seed} and the {count - 1} after it pass 2**64 - 1")
    if out is not None:
        refuse_foreign([Path(out)], force=force)
    seeds = range(seed, seed + count)
    batch = min(count, generator_of(model.task, model.manifest).max_batch)
    model.generate(seeds[:batch])  # memory is allocated in the first run of a batch size
    start_s = perf_counter()
    result = model.generate(seeds)
    rate = count / (perf_counter() - start_s)
    if out is not None and Path(out).suffix in WALK_SUFFIXES:
        save_animation(latent_walk(model, seeds), out, force=force)
    elif out is not None:
        result.save(out, force=force)
    return MadeSummary(count, batch, rate)
