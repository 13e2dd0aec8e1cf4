"""Build a bundle from one of torchvision's segmentation nets, with its trained weights.

    python examples/export/torchvision_nets.py --model lraspp_mobilenet_v3_large --frames FRAMES \
        --out street.ev

The module goes through unchanged; of the dict that it returns, "out" becomes the class map. Needs
torchvision, which fetches the weights. FRAMES is a folder of typical camera frames, for INT8.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torchvision.models import get_model, get_model_weights

import edgevision
from edgevision.export import SemanticSegmentation


def main() -> None:
    """Parse the arguments, build, and print how far each precision is from the module itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deeplabv3_mobilenet_v3_large", help="name there")
    parser.add_argument("--size", default="520x520", help="HxW of the net's input")
    parser.add_argument("--frames", type=Path, required=True, help="folder of typical frames")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory")
    options = parser.parse_args()

    weights = get_model_weights(options.model).DEFAULT
    height, width = map(int, options.size.split("x"))
    net = SemanticSegmentation(
        get_model(options.model, weights=weights),
        size=(height, width),
        classes=weights.meta["categories"],
    )
    summary = edgevision.build(
        net, options.out, precision="int8", calibration=options.frames, targets=["host-cpu", "rtx"]
    )
    print(*summary.parity, sep="\n")


if __name__ == "__main__":
    main()
