"""A graph with its pixels inside, against the usual Python around float logits, frame to map.

    python -m benchmarks.segmentation [--json-file FILE] [--rounds 20]

The usual way is what deployment tutorials write: scale, normalise, transpose and copy in numpy, run
float32 tensors, take the argmax in numpy. Both run the same net on the same ONNX Runtime with the
same threads, from a camera's uint8 frame to a uint8 class map.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import measure
from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.semantic import SemanticSegmentation
from edgevision.export.checkpoint import load_weights
from edgevision.export.graph.capture import serialized
from edgevision.export.peers import NumpyPrePost
from edgevision.export.zoo import card_size, zoo_entry
from edgevision.models.unet import unet_mobilenet_v2
from edgevision.runtime.session import Session


class Small(nn.Module):
    """Four convolutions and a bilinear enlargement: as little net as still segments."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, classes, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the picture's size."""
        return interpolate(self.body(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


def compared(name: str, net: nn.Module, size: tuple[int, int], classes: int, rounds: int,
             bar: float | None) -> Row:  # fmt: skip
    """Time both ways, after a look at whether they say the same."""
    net = net.eval()
    usual = NumpyPrePost(net, size)
    adapter = SemanticSegmentation(net, size=size, classes=[f"c{i}" for i in range(classes)])
    coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    frame = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1))
    graph = serialized(adapter.to_onnx())
    with Session.open(graph, flavour=ORT) as session:
        feeds = {adapter.inputs[0].name: frame[np.newaxis]}
        (found,) = session.run(feeds).values()
        differs = float((found[0] != usual.run(frame)).mean())
        if differs > 1e-4:
            raise SystemExit(f"{name}: the class maps differ on {differs:.2%} of pixels")
        times = measure(
            {"usual": lambda: usual.run(frame), "fused": lambda: session.run(feeds)}, rounds=rounds
        )
    ratio = times.ratio("usual", over="fused")
    return row(f"{name}, {size[0]}x{size[1]}", ratio, bar, times, at_least=True)


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=20)


def main() -> int:
    options = parser().parse_args()
    torch.manual_seed(0)
    entry = zoo_entry("unet-camvid")
    trained = unet_mobilenet_v2(**entry.arguments)
    trained.load_state_dict(load_weights(entry.weights))
    rows = [
        compared("usual over fused, small net", Small(19), (512, 1024), 19, options.rounds, 1.15),
        compared(
            "usual over fused, unet-camvid",
            trained,
            card_size(entry.card),
            11,
            options.rounds,
            None,
        ),
    ]
    print(*rows, sep="\n")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds)
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
