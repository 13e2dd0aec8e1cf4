"""Two cameras on one model, a pipeline each; here the cameras are a folder of pictures.

python examples/run/cameras.py road.ev frames/
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgevision


def camera(folder: Path, size: tuple[int, int], fps: float) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the folder's pictures at camera rate, each with when it was taken."""
    height, width = size
    for path in sorted(folder.glob("*.jpg")):
        yield (
            np.asarray(Image.open(path).convert("RGB").resize((width, height))),
            (time.perf_counter_ns()),
        )
        time.sleep(1 / fps)


def drive(model: Any, name: str, frames: Iterator[tuple[np.ndarray, int]]) -> None:
    """Take one camera's frames, and act on the newest answer that is in time."""
    acted = 0
    with model.stream(policy="latest", deadline_ms=100) as pipeline:
        for frame, stamp_ns in frames:
            pipeline.submit(frame, stamp_ns=stamp_ns, meta=name)
            newest = pipeline.latest()
            if newest is not None and not newest.is_late:
                acted += 1
    print(f"{name}: acted {acted} times; {pipeline.counters()}")


def main() -> None:
    """Parse the arguments, and run both cameras until their frames end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--fps", type=float, default=10)
    options = parser.parse_args()

    with edgevision.load(options.bundle) as model:
        size = model.decoder.camera.size
        threads = [
            threading.Thread(
                target=drive, args=(model, name, camera(options.frames, size, options.fps))
            )
            for name in ("front", "rear")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
