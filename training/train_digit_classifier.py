"""Train the digit classifier whose features compare generated digits with real ones.

DIGITS is an .npz with `images: uint8[N, 28, 28]` and `labels: uint8[N]`; the last 2,000 are kept
out of training and scored once, at the end: no choice hangs on them.

    python training/train_digit_classifier.py --digits DIGITS.npz --out RUN

RUN receives `model.safetensors` and `metrics.jsonl` (one line an epoch, the score in the last).
Every random choice depends only on the seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from run_state import save_rows, save_weights
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from edgevision.models.digit_classifier import DigitClassifier

KEPT_OUT = 2000
BATCH = 128


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images and labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Train as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = read_digits(options.digits)
    model = DigitClassifier()
    steps = (len(images) - KEPT_OUT) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=options.epochs * steps
    )
    rows: list[dict[str, float]] = []
    for epoch in range(options.epochs):
        started = time.perf_counter()
        order = torch.randperm(len(images) - KEPT_OUT)
        losses = []
        model.train()
        for chosen in order[: steps * BATCH].split(BATCH):
            loss = cross_entropy(model(moved(images[chosen])), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        rows.append({"epoch": epoch, "loss": float(np.mean(losses)), "seconds": seconds})
        print(f"epoch {epoch + 1}/{options.epochs}  loss {rows[-1]['loss']:.4f}  {seconds:.1f} s")
    rows[-1]["accuracy"] = accuracy(model, images[-KEPT_OUT:], labels[-KEPT_OUT:])
    print(f"accuracy {rows[-1]['accuracy']:.4f} on {KEPT_OUT} digits never seen")
    save_weights(options.out / "model.safetensors", model.state_dict())
    save_rows(options.out / "metrics.jsonl", rows)


def read_digits(path: Path) -> tuple[Tensor, Tensor]:
    """Read `images: float32[N, 1, 28, 28], -1 to 1` and `labels: int64[N]`."""
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    if images.shape != (len(labels), 28, 28) or len(labels) < KEPT_OUT + BATCH:
        raise SystemExit(
            f"{path}: images {list(images.shape)} and labels {list(labels.shape)}, expected "
            f"[N, 28, 28] and [N] with N at least {KEPT_OUT + BATCH}"
        )
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1, torch.from_numpy(labels).long()


def moved(images: Tensor) -> Tensor:
    """Turn by up to 12 degrees, scale by up to 12 %, shift by up to 2 pixels, each its own way."""
    count = len(images)
    turn, scale, x, y = (torch.rand(4, count) * 2 - 1) * torch.tensor(
        [[0.21], [0.12], [2 / 14], [2 / 14]]
    )
    cos, sin = turn.cos() * (1 + scale), turn.sin() * (1 + scale)
    theta = torch.stack((cos, -sin, x, sin, cos, y), 1).reshape(count, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    # What comes in from outside is 0: shifted by one, that is the background.
    return grid_sample(images + 1, grid, align_corners=False) - 1


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of `images` that get their own label."""
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    main()
