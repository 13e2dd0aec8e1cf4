"""Print a caption word by word, as the net finds it: the shipped captioner, built to stream.

python examples/run/words.py
"""

from __future__ import annotations

import tempfile

import numpy as np
from PIL import Image
from safetensors.torch import load_file

import edgevision
from edgevision.export import Captioner
from edgevision.export.zoo import zoo_entry
from edgevision.models.captioner import captioner_mobilenet_v2


def main() -> None:
    """Build the captioner's two stages, and stream the words of its first scenes."""
    entry = zoo_entry("captioner-digits")
    module = captioner_mobilenet_v2(**entry.arguments)
    module.load_state_dict(load_file(entry.weights))
    net = Captioner(
        module, entry.card["vocabulary"], size=tuple(entry.card["size"]), max_length=20, form="step"
    )
    pictures = sorted((entry.samples / "images").glob("*.png"))[:3]
    with tempfile.TemporaryDirectory() as folder:
        edgevision.build(net, f"{folder}/say.ev", calibration=pictures[0].parent)
        with edgevision.load_streaming(f"{folder}/say.ev") as captioner:
            for path in pictures:
                print(f"{path.name}:", end="")
                for word in captioner.words(np.asarray(Image.open(path).convert("RGB"))):
                    print(f" {word}", end="", flush=True)
                print()


if __name__ == "__main__":
    main()
