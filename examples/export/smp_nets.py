"""Build a bundle from a net of segmentation-models-pytorch.

    python examples/export/smp_nets.py --checkpoint CHECKPOINT --classes FILE --frames FRAMES \
        --out street.ev

CHECKPOINT is a folder that the net's `save_pretrained` wrote, or a name on the hub. FILE names one
class a line. FRAMES is a folder of typical camera frames, for INT8.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import segmentation_models_pytorch as smp

import edgevision
from edgevision.export import SemanticSegmentation
from edgevision.export.source import read_classes


def main() -> None:
    """Parse the arguments, build, and print how far each precision is from the module itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="folder, or name on the hub")
    parser.add_argument("--classes", type=Path, required=True, help="file, one name a line")
    parser.add_argument("--size", default="352x480", help="HxW, most nets want multiples of 32")
    parser.add_argument("--frames", type=Path, required=True, help="folder of typical frames")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory")
    options = parser.parse_args()

    height, width = map(int, options.size.split("x"))
    # Frames are normalised by ImageNet's mean and deviation. Where the encoder wants others, as
    # smp.encoders.get_preprocessing_params says, give them as mean= and std=.
    net = SemanticSegmentation(
        smp.from_pretrained(options.checkpoint),
        size=(height, width),
        classes=read_classes(options.classes),
    )
    summary = edgevision.build(
        net, options.out, precision="int8", calibration=options.frames, targets=["host-cpu", "rtx"]
    )
    print(*summary.parity, sep="\n")


if __name__ == "__main__":
    main()
