r"""Train a small FCOS on scenes of handwritten digits over photos.

    python training/train_detector.py --digits DIGITS.npz --photos FOLDER --out RUN \
        --start checkpoints/maskrcnn-digits/model.safetensors

DIGITS and FOLDER are those of `scenes.py`, split as `train_instances.py` splits them. The backbone
and its pyramid start from a trained Mask R-CNN's and are trained at a tenth of the rate of the
head; the batch norms stay as they are. RUN receives `model.safetensors` after every epoch,
`last.pt` (to go on with `--resume`), `metrics.jsonl` (one line an epoch), `curve.png` and
`scenes.png`. A resumed run repeats what an unbroken one would have done.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from detector_losses import losses
from run_state import load_state, save_rows, save_state, save_weights
from safetensors.torch import load_file
from scenes import MOST_DIGITS, SIZE, Frame, Stock, compose, read_stock, split
from train_instances import CLASSES, VALIDATION_SEED, descend, plot, sheet, truth_of

from edgevision.export.adapters.detection import Detection
from edgevision.export.adapters.frame import IMAGENET_MEAN, IMAGENET_STD, CameraInput, FrontEnd
from edgevision.metrics.average_precision import Detections, DetectionScore, Objects
from edgevision.models.fcos import FCOS, fcos_mobilenet_v2
from edgevision.tasks.camera import CameraFrame, ClassLabel
from edgevision.tasks.detection import DetectionDecoder, DetectionResult
from edgevision.tasks.pixel_formats import packed
from edgevision.tasks.timings import Timings

_LATERAL = "backbone.fpn."


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images and labels")
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg backgrounds")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--start", type=Path, help="weights of maskrcnn-digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3, help="of the head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scored", type=int, default=100, help="scenes that a score is of")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Train as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    training, unseen = split(read_stock(options.digits, options.photos))
    net = fcos_mobilenet_v2(len(CLASSES))
    if options.start:
        net.backbone.load_state_dict(start_of(load_file(options.start), net))
    heads = [p for name, p in net.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": heads, "lr": options.lr},
              {"params": list(net.backbone.parameters()), "lr": options.lr / 10}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [options.lr, options.lr / 10], total_steps=options.epochs * options.steps,
        pct_start=0.1,
    )  # fmt: skip
    parts = {"model": net, "optimizer": optimizer, "schedule": schedule}
    history = load_state(options.out / "last.pt", parts) if options.resume else []
    for epoch in range(len(history), options.epochs):
        started = time.perf_counter()
        row = {"epoch": epoch} | train_epoch(net, optimizer, schedule, training, options, epoch)
        row["box_ap"] = evaluate(net, unseen, options.scored)
        row["seconds"] = time.perf_counter() - started
        history.append(row)
        print(
            f"epoch {epoch + 1}/{options.epochs}  loss {row['loss']:.3f}  box AP "
            f"{row['box_ap']:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )
        save_state(options.out / "last.pt", parts, history)
        save_rows(options.out / "metrics.jsonl", history)
        save_weights(options.out / "model.safetensors", net.state_dict())
    plot(history, options.out / "curve.png")
    large = (SIZE[0] * 2, SIZE[1] * 2)
    sheet(lambda frame: detect(adapter(net, large), frame), unseen, options.out / "scenes.png")


def start_of(state: dict[str, torch.Tensor], net: FCOS) -> dict[str, torch.Tensor]:
    """Return a Mask R-CNN's backbone and pyramid for `net`, whose pyramid lacks finest maps."""
    fewer = 4 - len(net.strides)
    found = {}
    for name, values in state.items():
        if name.startswith(_LATERAL):
            kind, level, rest = name.removeprefix(_LATERAL).split(".", 2)
            if int(level) >= fewer:
                found[f"fpn.{kind}.{int(level) - fewer}.{rest}"] = values
        elif name.startswith("backbone."):
            found[name.removeprefix("backbone.")] = values
    return found


def train_epoch(
    net: FCOS,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    stock: Stock,
    options: argparse.Namespace,
    epoch: int,
) -> dict[str, float]:
    """Train on new scenes; return the mean of each loss, and of their sum."""
    front = FrontEnd(CameraInput.check(SIZE, None, "rgb"), IMAGENET_MEAN, IMAGENET_STD)
    net.train()
    net.backbone.body.eval()  # the batch norms' statistics are those of the start
    rows = []
    for step in range(options.steps):
        first = (epoch * options.steps + step) * options.batch
        scenes = [
            compose(stock, options.seed, first + i, most=MOST_DIGITS) for i in range(options.batch)
        ]
        frames = front.pixels(torch.from_numpy(np.stack([scene.frame for scene in scenes])))
        truth = truth_of(scenes)
        parts = losses(net, frames, truth.boxes, truth.labels)
        rows.append(descend(net, parts, optimizer, schedule))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def adapter(net: FCOS, input_size: tuple[int, int] = SIZE) -> Detection:
    """Return what runs the net on frames."""
    from edgevision.export.adapters.frame import Camera

    return Detection(
        net, size=SIZE, classes=CLASSES, corners="xyxy", camera=Camera(input_size), detections=20
    )


def evaluate(net: FCOS, stock: Stock, count: int) -> float:
    """Return the average precision of boxes over `count` scenes."""
    runs, score = adapter(net), DetectionScore("boxes")
    for index in range(count):
        scene = compose(stock, VALIDATION_SEED, index, most=MOST_DIGITS)
        found = detect(runs, scene.frame)
        objects = Objects(scene.boxes, scene.labels - 1, scene.masks)
        score.add(objects, Detections(found.boxes, found.labels, found.scores))
    return float(score.average_precision().ap)


def detect(runs: Detection, frame: Frame) -> DetectionResult:
    """Return what the net finds in `frame: uint8[H, W, 3]`."""
    task = DetectionDecoder(
        tuple(ClassLabel(*pair) for pair in CLASSES),
        CameraFrame("frame", packed("rgb", frame.shape[:2])),
    )
    return task.decode(runs.reference({"frame": frame[None]}), Timings(0, 0, 0))


if __name__ == "__main__":
    main()
