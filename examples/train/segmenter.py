"""Train a small segmenter on a labelled folder, and build its bundle: where to start from.

python examples/train/segmenter.py --data DATA --classes road,car,person --out road.ev

DATA has `images/NAME.jpg` and `labels/NAME.png`, a class index for each pixel, 255 for void. The
trainers of the shipped nets, with augmentation, schedules and resuming, are in training/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import edgevision
from edgevision.export import SemanticSegmentation
from edgevision.models.unet import unet_mobilenet_v2

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
VOID = 255


def read(data: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return pictures float32[N, 3, H, W], normalised, and labels int64[N, H, W]."""
    shape = size[::-1]
    pixels, labels = [], []
    for path in sorted((data / "images").iterdir()):
        photo = Image.open(path).convert("RGB").resize(shape)
        label = Image.open(data / "labels" / f"{path.stem}.png").resize(shape, Image.NEAREST)
        pixels.append((torch.from_numpy(np.array(photo)) / 255 - MEAN) / STD)
        labels.append(torch.from_numpy(np.array(label)).long())
    return torch.stack(pixels).permute(0, 3, 1, 2).contiguous(), torch.stack(labels)


def main() -> None:
    """Parse the arguments, train, build, and print what each precision costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", required=True, help="names, with commas")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    size, classes = (96, 128), options.classes.split(",")
    torch.manual_seed(0)
    pixels, labels = read(options.data, size)
    net = unet_mobilenet_v2(classes=len(classes)).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(options.steps):
        batch = torch.randint(len(pixels), (min(8, len(pixels)),))
        loss = nn.functional.cross_entropy(net(pixels[batch]), labels[batch], ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    adapter = SemanticSegmentation(net.eval(), size=size, classes=classes)
    summary = edgevision.build(adapter, options.out, precision="fp16", evaluate=options.data)
    for score in summary.scores:
        print(score.form, score.figures())


if __name__ == "__main__":
    main()
