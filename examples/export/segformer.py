"""Build a bundle from a SegFormer of Hugging Face transformers, with its trained weights.

    python examples/export/segformer.py --frames FRAMES --out street.ev

The net gives logits at a quarter of its input. Enlarging them and taking the likeliest class, which
its image processor does in Python, is in the graph. Needs transformers, which fetches the weights.
FRAMES is a folder of typical camera frames, for INT8.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import SegformerForSemanticSegmentation

import edgevision
from edgevision.export import SemanticSegmentation

CITYSCAPES = "nvidia/segformer-b0-finetuned-cityscapes-512-1024"


def main() -> None:
    """Parse the arguments, build, and print how far each precision is from the module itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=CITYSCAPES, help="folder, or name on the hub")
    parser.add_argument("--size", default="512x1024", help="HxW of the net's input")
    parser.add_argument("--frames", type=Path, required=True, help="folder of typical frames")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory")
    options = parser.parse_args()

    module = SegformerForSemanticSegmentation.from_pretrained(options.checkpoint)
    names = module.config.id2label
    height, width = map(int, options.size.split("x"))
    net = SemanticSegmentation(
        module, size=(height, width), classes=[names[i] for i in range(len(names))]
    )
    summary = edgevision.build(
        net, options.out, precision="int8", calibration=options.frames, targets=["host-cpu", "rtx"]
    )
    print(*summary.parity, sep="\n")


if __name__ == "__main__":
    main()
