"""Train a segmentation net on a folder in CamVid layout.

    DATA/{train,val}/images/NAME.jpg   photos, RGB
    DATA/{train,val}/labels/NAME.png   class indices, one byte a pixel; `--void` is never scored

    python training/train_segmentation.py --data DATA --out RUN --encoder-weights mobilenet_v2.pth

RUN receives `model.safetensors` (the best on val), `last.pt` (to go on with `--resume`),
`metrics.jsonl` (one line an epoch) and `curve.png`. A resumed run repeats what an unbroken one
would have done: every random choice depends only on (seed, epoch, index).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from run_state import load_state, save_rows, save_state, save_weights
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from edgevision.metrics.segmentation import ConfusionMatrix
from edgevision.models.deeplab import deeplabv3_mobilenet_v2
from edgevision.models.fcn import fcn_mobilenet_v2
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.models.unet import unet, unet_mobilenet_v2

CAMVID_CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MODELS = {
    "deeplabv3-mobilenetv2": deeplabv3_mobilenet_v2,
    "fcn-mobilenetv2": fcn_mobilenet_v2,
    "unet-mobilenetv2": unet_mobilenet_v2,
    "unet": unet,
}


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in CamVid layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--model", choices=sorted(MODELS), default="unet-mobilenetv2")
    parser.add_argument("--encoder-weights", type=Path, help="torchvision's mobilenet_v2 weights")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", default="288x384", help="HxW of a training crop")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--void", type=int, default=11, help="label that is never scored")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Train as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    training, validation = (pairs(options.data / part) for part in ("train", "val"))
    print(f"{len(training)} training and {len(validation)} validation images", flush=True)
    model = MODELS[options.model](len(CAMVID_CLASSES))
    if options.encoder_weights:
        encoders = [part for part in model.modules() if isinstance(part, MobileNetV2)]
        if not encoders:
            raise SystemExit(f"--encoder-weights: {options.model} has no MobileNetV2 to load them")
        encoders[0].load_imagenet(torch.load(options.encoder_weights, weights_only=True))
    model.to(memory_format=torch.channels_last)

    weights = class_weights(training, options.void)
    crop = tuple(int(side) for side in options.crop.split("x"))
    steps = len(training) // options.batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=options.epochs * steps, pct_start=0.1
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    history: list[dict[str, float]] = []
    if options.resume:
        history = load_state(options.out / "last.pt", parts)

    for epoch in range(len(history), options.epochs):
        started = time.perf_counter()
        loss = train_epoch(model, optimizer, schedule, training, weights, options, epoch, crop)
        score = evaluate(model, validation)
        row = {
            "epoch": epoch,
            "loss": loss,
            "miou": score.miou(),
            "pixel_accuracy": score.pixel_accuracy(),
            "seconds": time.perf_counter() - started,
        }
        best = all(row["miou"] > past["miou"] for past in history)
        history.append(row)
        print(
            f"\repoch {epoch + 1}/{options.epochs}  loss {loss:.3f}  mIoU {row['miou']:.4f}"
            f"{' *' if best else ''}  {row['seconds']:.0f} s",
            flush=True,
        )
        if best:
            save_weights(options.out / "model.safetensors", model.state_dict())
        save_state(options.out / "last.pt", parts, history)
        save_rows(options.out / "metrics.jsonl", history)
        plot(history, options.out / "curve.png")


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """List the (image, label) files of one part of the data set, sorted by name."""
    images = sorted((folder / "images").iterdir())
    found = [(image, folder / "labels" / f"{image.stem}.png") for image in images]
    missing = [str(label) for _, label in found if not label.is_file()]
    if missing or not found:
        raise SystemExit(f"{folder}: {len(found)} images, labels missing: {missing[:3]}")
    return found


def class_weights(training: list[tuple[Path, Path]], void: int) -> Tensor:
    """Weigh rare classes up: 1 / log(1.1 + share) of Paszke et al. 2016 (ENet), section 5."""
    counts = np.zeros(256, np.int64)
    for _, label in training:
        counts += np.bincount(np.asarray(Image.open(label)).ravel(), minlength=256)
    counts[void] = 0
    share = counts[: len(CAMVID_CLASSES)] / counts.sum()
    return torch.tensor(1 / np.log(1.1 + share), dtype=torch.float32)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    training: list[tuple[Path, Path]],
    weights: Tensor,
    options: argparse.Namespace,
    epoch: int,
    crop: tuple[int, int],
) -> float:
    """Train on every image once; return the mean loss."""
    model.train()
    torch.manual_seed(options.seed * 10_000 + epoch)  # for dropout
    order = np.random.default_rng((options.seed, epoch)).permutation(len(training))
    losses = []
    for start in range(0, len(order) - options.batch + 1, options.batch):
        batch = [
            augment(
                training[i], crop, options.void, np.random.default_rng((options.seed, epoch, i))
            )
            for i in order[start : start + options.batch]
        ]
        frames = torch.stack([frame for frame, _ in batch])
        labels = torch.stack([label for _, label in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(frames.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), labels, weights, ignore_index=options.void)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if sys.stderr.isatty():
            print(f"\r  {start + len(batch)}/{len(order)}", end="", file=sys.stderr, flush=True)
    return float(np.mean(losses))


def augment(
    pair: tuple[Path, Path], crop: tuple[int, int], void: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Scale, crop, mirror and colour-jitter one image with its label."""
    frame, label = read(pair)
    scale = rng.uniform(0.6, 1.6)
    size = [max(1, round(side * scale)) for side in label.shape]
    frame = interpolate(frame[None], size=size, mode="bilinear", align_corners=False)[0]
    label = interpolate(label[None, None].float(), size=size, mode="nearest")[0, 0].long()
    below, right = (max(0, want - have) for want, have in zip(crop, size, strict=True))
    frame, label = pad(frame, (0, right, 0, below)), pad(label, (0, right, 0, below), value=void)
    top, left = (
        int(rng.integers(0, have - want + 1)) for want, have in zip(crop, label.shape, strict=True)
    )
    frame = frame[:, top : top + crop[0], left : left + crop[1]]
    label = label[top : top + crop[0], left : left + crop[1]]
    if rng.random() < 0.5:
        frame, label = frame.flip(-1), label.flip(-1)
    gain = torch.from_numpy(rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, (3, 1, 1)))
    mean = frame.mean()
    frame = ((frame - mean) * rng.uniform(0.7, 1.3) + mean) * gain.float()
    return normalise(frame.clamp(0, 255)), label


def read(pair: tuple[Path, Path]) -> tuple[Tensor, Tensor]:
    """Read `frame: float32[3, H, W], 0-255` and `label: int64[H, W]`."""
    frame = torch.from_numpy(np.array(Image.open(pair[0]).convert("RGB"))).float()
    return frame.permute(2, 0, 1), torch.from_numpy(np.array(Image.open(pair[1]))).long()


def normalise(frame: Tensor) -> Tensor:
    """Bring `frame: float32[3, H, W], 0-255` to ImageNet's mean and deviation."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (frame / 255 - mean) / std


@torch.inference_mode()
def evaluate(model: nn.Module, validation: list[tuple[Path, Path]]) -> ConfusionMatrix:
    """Score the model in float32 at full size."""
    model.eval()
    score = ConfusionMatrix(len(CAMVID_CLASSES))
    for pair in validation:
        frame, label = read(pair)
        logits = model(normalise(frame)[None].contiguous(memory_format=torch.channels_last))
        score.add(label.numpy(), logits[0].argmax(0).numpy())
    return score


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Draw loss and mIoU over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss")
    right = left.twinx()
    right.plot(epochs, [row["miou"] for row in history], color="tab:blue", label="val mIoU")
    right.set(ylabel="val mIoU", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
