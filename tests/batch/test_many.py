"""Many frames by hand: EDGEVISION_TEST_FLEET=20000 scores as many in every way, with kills.

What it prints (-s) is the figures of `docs/fleet.md`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.tasks.frames import list_images, read_image, resize
from tests.parts.tiny_bundles import semantic_bundle

COUNT = int(os.environ.get("EDGEVISION_TEST_FLEET", "0"))
KILLS, SHARD, SIZE = 10, 250, (72, 96)
MAX_GROWTH_MB = 200
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"

pytestmark = [
    pytest.mark.skipif(not COUNT, reason="by hand: EDGEVISION_TEST_FLEET=20000"),
    pytest.mark.timeout(3600),
]


def make_frames(folder: Path) -> None:
    """Write the shipped photos again and again, each time shifted and brightened otherwise."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    photos = [resize(read_image(path), SIZE) for path in list_images(PHOTOS)]
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        photo = np.roll(photos[number % len(photos)], int(rng.integers(SIZE[1])), axis=1)
        frame = np.clip(photo * rng.uniform(0.5, 1.5), 0, 255).astype(np.uint8)
        labels = (frame.argmax(2) + rng.integers(0, 2)) % 3
        Image.fromarray(frame).save(folder / "images" / f"{number:06d}.jpg", quality=90)
        Image.fromarray(labels.astype(np.uint8)).save(folder / "labels" / f"{number:06d}.png")


def test_many_frames_give_the_same_figures_in_every_way(tmp_path: Path) -> None:
    make_frames(tmp_path / "data")
    semantic_bundle(tmp_path / "tiny.ev", size=SIZE)
    here = score(tmp_path, "here")
    ways: dict[str, Sequence[str]] = {"processes": ["--workers", "2"]}
    if importlib.util.find_spec("ray") is not None:
        ways["ray"] = ["--workers", "2", "--ray", "local"]
    for name, flags in ways.items():
        assert figures(score(tmp_path, name, *flags)) == figures(here), name
    killed = kill_and_resume(tmp_path)
    assert figures(killed) == figures(here)


def score(folder: Path, name: str, *flags: str) -> Any:
    """Run the command, and hold its memory."""
    start = time.monotonic()
    done = subprocess.run(
        [*command(folder, name), *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(
        f"{name}: {time.monotonic() - start:.0f} s, grew by {growth_mb(report):.0f} MB", flush=True
    )
    assert growth_mb(report) < MAX_GROWTH_MB
    return report


def command(folder: Path, name: str) -> list[str]:
    return [
        sys.executable, "-m", "edgevision", "score", str(folder / "tiny.ev"), str(folder / "data"),
        "--out", str(folder / name), "--shard", str(SHARD), "--json",
    ]  # fmt: skip


def kill_and_resume(folder: Path) -> Any:
    """Kill the command at random moments, and go on with it."""
    rng, shards = random.Random(7), folder / "killed" / "shards"
    line = [*command(folder, "killed"), "--workers", "2", "--resume"]
    done = []
    for _ in range(KILLS):
        child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.5, 8))
        assert child.poll() is None, "it ended before it was killed: give more frames"
        child.kill()
        child.wait()
        done.append(len(list(shards.glob("*.npz"))))
    print(f"killed {KILLS} times, after {done} of {-(-COUNT // SHARD)} shards", flush=True)
    return score(folder, "killed", "--workers", "2", "--resume")


def figures(report: Any) -> Any:
    """Return every digit of the scores, and which frames of which shard were counted."""
    counted = [(shard["number"], shard["frames"]) for shard in report["shards"]]
    return report["scores"], report["frames"], counted


def growth_mb(report: Any) -> float:
    """Return how much the memory of any worker grew after its first shard."""
    sizes: dict[int, list[float]] = {}
    for shard in report["shards"]:
        sizes.setdefault(shard["worker"], []).append(shard["resident_mb"])
    return max(max(kept) - kept[0] for kept in sizes.values())
