"""Fine-tune a net with quantisation in the loop until INT8 answers as FP32 does, and build it.

python examples/train/quantized.py --data DATA --out road.ev

The trained net teaches its copy on DATA's `train/images`, and `val` with labels is scored; without
DATA it is a generator, taught on random numbers. `--steps 0` shows INT8 without training.
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
from edgevision.models.gan import digit_generator
from edgevision.models.unet import unet_mobilenet_v2

SHIPPED = Path(__file__).parents[2] / "checkpoints"
CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
SIZE = (360, 480)
MEAN, STD = (torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def draw(photos: list[Path]) -> torch.Tensor:
    """Return what the net takes: two photos, or sixty-four latents where there are none."""
    if not photos:
        return torch.randn(64, 100)
    chosen = [Image.open(photos[i]).convert("RGB") for i in torch.randint(len(photos), (2,))]
    pixels = np.stack([np.asarray(photo.resize(SIZE[::-1])) for photo in chosen])
    return ((torch.from_numpy(pixels) / 255 - MEAN) / STD).permute(0, 3, 1, 2)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return how far apart pictures are, or the shares of classes at each pixel."""
    cross = -(wanted.softmax(1) * found.log_softmax(1)).sum(1).mean()
    return (found - wanted).square().mean() if found.shape[1] == 1 else cross


def main() -> None:
    """Parse the arguments, train, build, and print what each form scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--weight-steps", type=int, default=127, help="7 are what 4 bits have")
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
    teacher.eval().load_state_dict(load_file(SHIPPED / name / "model.safetensors"))
    typical = [draw(photos) for _ in range(16)]
    student = fake_quantize(teacher, typical, weight_steps=options.weight_steps)
    optimizer = torch.optim.Adam(student.parameters())
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / options.steps)
        batch = draw(photos)
        loss = apart(student(batch), teacher(batch).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: {loss.item():.5f}", flush=True)
    net, labelled = adapter(student, **own), options.data and options.data / "val"
    built = edgevision.build(net, options.out, precision="int8", evaluate=labelled)
    print(*(f"{score.form} {score.figures()}" for score in built.scores), sep="\n")


if __name__ == "__main__":
    main()
