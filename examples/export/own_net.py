"""Build an INT8 bundle from a net of your own, and print what each precision costs.

python examples/export/own_net.py --frames frames/ [--labelled val/] --out road.ev

Put your module where `my_module` is. FRAMES is a folder of 50 or more typical camera frames;
LABELLED has `images/` and `labels/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

import edgevision
from edgevision.export import SemanticSegmentation
from edgevision.models.fcn import fcn_mobilenet_v2

CLASSES = [("road", "#804080"), ("car", "#2020d0"), ("person", "#dc143c")]


def my_module() -> nn.Module:
    """Return the trained module: a tensor of logits, a dict with "out", or `.logits` come out."""
    return fcn_mobilenet_v2(classes=len(CLASSES))


def main() -> None:
    """Parse the arguments, build, and print the parity and the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    net = SemanticSegmentation(
        my_module(), size=(96, 128), input_size=(480, 640), classes=CLASSES, channel_order="rgb"
    )
    summary = edgevision.build(
        net,
        options.out,
        precision="int8",
        calibration=options.frames,
        evaluate=options.labelled,
        targets=["host-cpu", "jetson-orin-jp6"],
    )
    print(*summary.parity, sep="\n")
    for score in summary.scores:
        print(score.form, score.figures())


if __name__ == "__main__":
    main()
