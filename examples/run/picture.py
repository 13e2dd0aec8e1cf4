"""Run a bundle on one picture, and write what it says of it.

python examples/run/picture.py road.ev street.jpg --out seen.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import edgevision


def main() -> None:
    """Parse the arguments, run, and print the answer and where the time went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("seen.png"))
    options = parser.parse_args()

    with edgevision.load(options.bundle) as model:
        print(model.explain())
        camera = model.decoder.camera
        height, width = camera.size
        picture = np.asarray(Image.open(options.picture).convert("RGB").resize((width, height)))
        result = model(camera.fit(picture))  # as the camera would give it: NV12, BGR, Bayer ...
    print(result.summary().text)
    print(
        f"{result.timings.total_ms:.1f} ms, of which {result.timings.compute_ms:.1f} in the engine"
    )
    Image.fromarray(result.overlay(picture)).save(options.out)


if __name__ == "__main__":
    main()
