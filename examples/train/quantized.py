"""Fine-tune a net with quantisation in the loop until INT8 answers as FP32 does, and build it.

python examples/train/quantized.py --data DATA --out road.ev  # without DATA a generator

The trained net teaches its copy on DATA's `train/images`; `val` with labels is scored.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import edgevision
from edgevision.export import ImageGenerator, Normal, SemanticSegmentation, fake_quantize
from edgevision.export.zoo import zoo_entry
from edgevision.models.gan import digit_generator
from edgevision.models.unet import unet_mobilenet_v2

CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
SIZE, PART = (360, 480), (180, 240)  # a step on parts takes a quarter of the time
MEAN, STD = (torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def draw(photos: list[Path], size: tuple[int, int]) -> torch.Tensor:
    """Return parts of two photos, as the net takes them; 64 latents where there are none."""
    if not photos:
        return torch.randn(64, 100)
    top, left = (int(torch.randint(whole - s + 1, ())) for whole, s in zip(SIZE, size, strict=True))
    chosen = [Image.open(photos[i]).convert("RGB") for i in torch.randint(len(photos), (2,))]
    box = (left, top, left + size[1], top + size[0])
    pixels = np.stack([np.asarray(photo.resize(SIZE[::-1]).crop(box)) for photo in chosen])
    return ((torch.from_numpy(pixels) / 255 - MEAN) / STD).permute(0, 3, 1, 2)


def main() -> None:
    """Parse the arguments, train, build, and print what each form scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="0 shows INT8 without training")
    parser.add_argument("--levels", type=int, default=127, help="7 are what 4 bits have")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    photos = sorted((options.data / "train/images").iterdir()) if options.data else []
    if photos:
        name, rate, teacher = "unet-camvid", 1e-4, unet_mobilenet_v2(len(CLASSES))
        adapter, own = SemanticSegmentation, {"size": SIZE, "classes": CLASSES}
    else:
        name, rate, teacher = "gan-digits", 1e-5, digit_generator()
        adapter, own = ImageGenerator, {"inputs": [Normal("latent", (100,))]}
    teacher.eval().load_state_dict(load_file(zoo_entry(name).weights))
    student, learner = (
        fake_quantize(teacher, [draw(photos, s) for _ in range(16)], weight_steps=options.levels)
        for s in (SIZE, PART)
    )
    learner.load_state_dict(student.state_dict())  # the scales, too
    optimizer = torch.optim.Adam(learner.parameters())
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / options.steps)
        batch = draw(photos, PART)
        found, wanted = learner(batch), teacher(batch).detach()
        cross = -(wanted.softmax(1) * found.log_softmax(1)).sum(1).mean()
        loss = cross if photos else (found - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: {loss.item():.5f}", flush=True)
    student.load_state_dict(learner.state_dict())
    net, labelled = adapter(student, **own), options.data and options.data / "val"
    built = edgevision.build(net, options.out, precision="int8", evaluate=labelled)
    print(*(f"{score.form} {score.figures()}" for score in built.scores), sep="\n")


if __name__ == "__main__":
    main()
