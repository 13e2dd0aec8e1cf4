r"""Train a small Mask R-CNN on scenes of handwritten digits over photos.

    python training/train_instances.py --digits DIGITS.npz --photos FOLDER --out RUN \
        --encoder-weights mobilenet_v2.pth

DIGITS and FOLDER are those of `scenes.py`. The last fifth of both is kept out of training: the
score is of scenes whose digits and photos the net never saw. RUN receives `model.safetensors`,
`last.pt` (to go on with `--resume`), `metrics.jsonl` (one line an epoch), `curve.png`, and
`scenes.png`, what the net finds in some of those. A resumed run repeats what an unbroken one would
have done: every random choice depends only on (seed, epoch, step).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from instance_losses import Truth, losses
from PIL import Image
from run_state import load_state, save_rows, save_state, save_weights
from scenes import MOST_DIGITS, SIZE, Frame, Scene, Stock, compose, read_stock, split
from torch import nn

from edgevision.export.adapters.detections import Detections as Graph
from edgevision.export.adapters.frame import CameraInput
from edgevision.export.adapters.instance import InstanceSegmentation
from edgevision.metrics.average_precision import (
    AveragePrecision,
    Detections,
    DetectionScore,
    Objects,
)
from edgevision.models.mask_rcnn import MaskRCNN, maskrcnn_mobilenet_v2
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.tasks.camera import CameraFrame, ClassLabel
from edgevision.tasks.detection import DetectionResult
from edgevision.tasks.instance import InstanceDecoder, InstanceResult
from edgevision.tasks.pixel_formats import packed
from edgevision.tasks.timings import Timings

CLASSES = [
    ("0", "#e6194b"), ("1", "#3cb44b"), ("2", "#ffe119"), ("3", "#4363d8"), ("4", "#f58231"),
    ("5", "#911eb4"), ("6", "#42d4f4"), ("7", "#f032e6"), ("8", "#bfef45"), ("9", "#fabed4"),
]  # fmt: skip
VALIDATION_SEED = 2**32


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images and labels")
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg backgrounds")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--encoder-weights", type=Path, help="torchvision's mobilenet_v2 weights")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scored", type=int, default=100, help="scenes that a score is of")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Train as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    training, unseen = split(read_stock(options.digits, options.photos))
    net = maskrcnn_mobilenet_v2(len(CLASSES) + 1)
    if options.encoder_weights:
        weights = torch.load(options.encoder_weights, weights_only=True)
        body = net.backbone.body
        assert isinstance(body, MobileNetV2)
        body.load_imagenet(weights)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=options.epochs * options.steps, pct_start=0.1
    )
    parts = {"model": net, "optimizer": optimizer, "schedule": schedule}
    history = load_state(options.out / "last.pt", parts) if options.resume else []

    for epoch in range(len(history), options.epochs):
        started = time.perf_counter()
        row = {"epoch": epoch} | train_epoch(net, optimizer, schedule, training, options, epoch)
        boxes, masks = evaluate(net, unseen, options.scored)
        row |= {"box_ap": boxes.ap, "mask_ap": masks.ap, "seconds": time.perf_counter() - started}
        history.append(row)
        print(
            f"\repoch {epoch + 1}/{options.epochs}  loss {row['loss']:.3f}  box AP {boxes.ap:.4f}  "
            f"mask AP {masks.ap:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )
        save_state(options.out / "last.pt", parts, history)
        save_rows(options.out / "metrics.jsonl", history)
        plot(history, options.out / "curve.png")
        show(net, unseen, options.out / "scenes.png")
    save_weights(options.out / "model.safetensors", net.state_dict())


def train_epoch(
    net: MaskRCNN,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    stock: Stock,
    options: argparse.Namespace,
    epoch: int,
) -> dict[str, float]:
    """Train on new scenes; return the mean of each loss, and of their sum."""
    graph = Graph(net.eval(), net.settings, CameraInput.check(SIZE, None, "rgb"))
    net.train()
    torch.manual_seed(options.seed * 10_000 + epoch)  # for the choice of anchors and regions
    rows = []
    for step in range(options.steps):
        first = (epoch * options.steps + step) * options.batch
        scenes = [
            compose(stock, options.seed, first + i, most=MOST_DIGITS) for i in range(options.batch)
        ]
        frames = torch.from_numpy(np.stack([scene.frame for scene in scenes]))
        parts = losses(net, graph, graph.pixels(frames), truth_of(scenes))
        rows.append(descend(net, parts, optimizer, schedule))
        if sys.stderr.isatty():
            print(f"\r  {step + 1}/{options.steps}", end="", file=sys.stderr, flush=True)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def descend(
    net: nn.Module,
    parts: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> dict[str, float]:
    """Take one step down the sum of the losses; return each, and the sum."""
    loss = sum(parts.values(), torch.zeros(()))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimizer.step()
    schedule.step()
    return {name: part.item() for name, part in (parts | {"loss": loss}).items()}


def truth_of(scenes: list[Scene]) -> Truth:
    """Return the objects of a batch, padded to `MOST_DIGITS`."""
    count = len(scenes)
    boxes = torch.zeros(count, MOST_DIGITS, 4)
    labels = torch.zeros(count, MOST_DIGITS, dtype=torch.int64)
    masks = torch.zeros(count, MOST_DIGITS, *SIZE)
    for i, scene in enumerate(scenes):
        found = len(scene.labels)
        boxes[i, :found] = torch.from_numpy(scene.boxes)
        labels[i, :found] = torch.from_numpy(scene.labels)
        masks[i, :found] = torch.from_numpy(scene.masks).float()
    return Truth(boxes, labels, masks)


def evaluate(net: MaskRCNN, stock: Stock, count: int) -> tuple[AveragePrecision, AveragePrecision]:
    """Return the average precision of boxes and of masks over `count` scenes."""
    adapter = InstanceSegmentation(net, size=SIZE, classes=CLASSES)
    scores = DetectionScore("boxes"), DetectionScore("masks")
    for index in range(count):
        scene = compose(stock, VALIDATION_SEED, index, most=MOST_DIGITS)
        found = detect(adapter, scene.frame)
        objects = Objects(scene.boxes, scene.labels - 1, scene.masks)
        for score in scores:
            score.add(objects, Detections(found.boxes, found.labels, found.scores, found.pasted()))
    boxes, masks = (score.average_precision() for score in scores)
    return boxes, masks


def detect(adapter: InstanceSegmentation, frame: Frame) -> InstanceResult:
    """Return what the net finds in `frame: uint8[H, W, 3]`."""
    task = InstanceDecoder(
        tuple(ClassLabel(*pair) for pair in CLASSES),
        CameraFrame("frame", packed("rgb", frame.shape[:2])),
    )
    return task.decode(adapter.reference({"frame": frame[None]}), Timings(0, 0, 0))


def show(net: MaskRCNN, stock: Stock, path: Path) -> None:
    """Draw what the net finds in twelve scenes."""
    adapter = InstanceSegmentation(
        net, size=SIZE, input_size=(SIZE[0] * 2, SIZE[1] * 2), classes=CLASSES
    )
    sheet(lambda frame: detect(adapter, frame), stock, path)


def sheet(
    find: Callable[[Frame], InstanceResult | DetectionResult], stock: Stock, path: Path
) -> None:
    """Draw what `find` finds in twelve scenes, twice as large as they are."""
    rows = []
    for row in range(3):
        drawn = []
        for column in range(4):
            scene = compose(stock, VALIDATION_SEED, row * 4 + column, most=MOST_DIGITS)
            frame = np.asarray(Image.fromarray(scene.frame).resize((SIZE[1] * 2, SIZE[0] * 2)))
            drawn.append(find(frame).above(0.5).overlay(frame))
        rows.append(np.concatenate(drawn, 1))
    Image.fromarray(np.concatenate(rows)).save(path)


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and the average precision over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss")
    right = left.twinx()
    for name, color in (("box_ap", "tab:blue"), ("mask_ap", "tab:green")):
        if name in history[0]:
            right.plot(epochs, [row[name] for row in history], color=color, label=f"unseen {name}")
    right.set(ylabel="AP of unseen scenes", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
