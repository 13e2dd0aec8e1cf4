r"""Train a captioner on scenes of handwritten digits over photos, or on captions in COCO's format.

    python training/train_captioner.py --digits DIGITS.npz --photos FOLDER --out RUN
    python training/train_captioner.py --captions captions.json --images FOLDER --out RUN

DIGITS and FOLDER are those of `scenes.py`: the last fifth of both is kept out of training, and the
scores are of scenes made of it. Of COCO captions, every tenth picture is kept out. The encoder
starts from the shipped detector of digits, or from --encoder-weights. RUN receives
`model.safetensors`, `vocabulary.json`, `last.pt` (to go on with `--resume`), `metrics.jsonl` (one
line an epoch), `curve.png`, and `captions.png`, what the net says of some unseen pictures. A run
that is resumed repeats what an unbroken one would have done: every random choice depends on (seed,
step) alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from run_state import load_state, save_rows, save_state, save_weights
from safetensors.torch import load_file
from scenes import CLASSES, SIZE, VOCABULARY, Dice, Frame, compose, read_stock, split, words
from torch import Tensor, nn

from edgevision.metrics.captions import CaptionScores, caption_scores
from edgevision.models.captioner import DECODERS, Captioner, captioner_mobilenet_v2

START, END, UNKNOWN = "<start>", "<end>", "<unknown>"
VALIDATION_SEED = 2**32
MAX_LENGTH = 20
RAREST = 5
_DETECTOR = Path(__file__).parents[1] / "checkpoints" / "maskrcnn-digits" / "model.safetensors"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IGNORED = -100

Example = tuple[Frame, list[str], Frame]


class Data(Protocol):
    """Frames with captions: `vocabulary` in the order of the net's outputs."""

    vocabulary: list[str]

    def example(self, number: int) -> Example:
        """Return training frame `number` of an endless series, its caption's words, what is where.

        The last is uint8[H, W], the number of a word, or 0 where nobody says what is there.
        """

    def unseen(self, index: int) -> tuple[Frame, list[str]]:
        """Return frame `index` that is kept out of training, and all its captions."""

    unseen_count: int


class Scenes:
    """Composed scenes of digits."""

    unseen_count = 1 << 30

    def __init__(self, digits: Path, photos: Path, seed: int) -> None:
        self.training, self.kept = split(read_stock(digits, photos))
        self.vocabulary = [START, END, *VOCABULARY]
        self.seed = seed

    def example(self, number: int) -> Example:
        """Return scene `number`."""
        scene = compose(self.training, self.seed, number)
        where = np.zeros(scene.frame.shape[:2], np.uint8)
        for (left, top, right, bottom), label in zip(
            scene.boxes.astype(int), scene.labels, strict=True
        ):
            where[top:bottom, left:right] = self.vocabulary.index(CLASSES[label])
        return scene.frame, words(scene.caption), where

    def unseen(self, index: int) -> tuple[Frame, list[str]]:
        """Return a scene of digits and photos that were kept out."""
        scene = compose(self.kept, VALIDATION_SEED, index)
        return scene.frame, [scene.caption]


class CocoCaptions:
    """Photos with captions as COCO publishes them; every tenth photo is kept out."""

    def __init__(self, captions: Path, images: Path, size: tuple[int, int], seed: int) -> None:
        content = json.loads(captions.read_text("utf-8"))
        said: dict[int, list[str]] = {}
        for item in content["annotations"]:
            said.setdefault(item["image_id"], []).append(item["caption"].strip().lower())
        photos = [
            (images / item["file_name"], said[item["id"]])
            for item in content["images"]
            if item["id"] in said
        ]
        if len(photos) < 10:
            raise SystemExit(
                f"{captions}: {len(photos)} pictures with captions, expected 10 or more"
            )
        self._kept = photos[::10]
        self._photos = [photo for i, photo in enumerate(photos) if i % 10]
        counts = Counter(w for _, captions in self._photos for c in captions for w in spoken(c))
        known = sorted(word for word, count in counts.items() if count >= RAREST)
        self.vocabulary = [START, END, UNKNOWN, *known]
        self._known, self.unseen_count = set(known), len(self._kept)
        self._size, self._seed = size, seed

    def example(self, number: int) -> Example:
        """Return a photo and one of its captions, both drawn."""
        dice = Dice(3, self._seed, number)
        path, captions = self._photos[dice.between(0, len(self._photos) - 1)]
        said = spoken(captions[dice.between(0, len(captions) - 1)])
        frame = self._read(path)
        words = [w if w in self._known else UNKNOWN for w in said]
        return frame, words, np.zeros(frame.shape[:2], np.uint8)

    def unseen(self, index: int) -> tuple[Frame, list[str]]:
        """Return a photo that was kept out."""
        path, captions = self._kept[index]
        return self._read(path), captions

    def _read(self, path: Path) -> Frame:
        with Image.open(path) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), self._size[::-1]))


def spoken(caption: str) -> list[str]:
    """Split a caption into words and commas."""
    return caption.replace(",", " ,").replace(".", " ").split()


def written(tokens: Sequence[str]) -> str:
    """Join words and commas into a caption."""
    return " ".join(tokens).replace(" ,", ",")


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, help=".npz with images and labels")
    parser.add_argument("--photos", type=Path, help="folder of .jpg backgrounds")
    parser.add_argument("--captions", type=Path, help="captions in COCO's format")
    parser.add_argument("--images", type=Path, help="folder of the pictures they speak of")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, help="height width of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--encoder-weights", type=Path, help="torchvision's mobilenet_v2 weights")
    parser.add_argument("--decoder", choices=DECODERS, default="lstm")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scored", type=int, default=200, help="frames that a score is of")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    options = parser.parse_args()
    data: Data
    if options.digits and options.photos:
        data = Scenes(options.digits, options.photos, options.seed)
    elif options.captions and options.images:
        data = CocoCaptions(options.captions, options.images, tuple(options.size), options.seed)
    else:
        parser.error("give --digits and --photos, or --captions and --images")
    train(data, options)


def train(data: Data, options: argparse.Namespace) -> None:
    """Train on `data` as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "vocabulary.json").write_text(json.dumps(data.vocabulary, indent=0) + "\n")
    net = captioner_mobilenet_v2(
        len(data.vocabulary), decoder=options.decoder, max_length=MAX_LENGTH + 1
    )
    net.encoder.backbone.load_state_dict(encoder_weights(options.encoder_weights))  # type: ignore[union-attr]
    spotter = nn.Linear(net.encoder.mix.out_features, len(data.vocabulary))  # type: ignore[union-attr]
    parameters = [*net.parameters(), *spotter.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=options.epochs * options.steps, pct_start=0.1
    )
    parts = {"model": net, "spotter": spotter, "optimizer": optimizer, "schedule": schedule}
    history = load_state(options.out / "last.pt", parts) if options.resume else []
    for epoch in range(len(history), options.epochs):
        started = time.perf_counter()
        loss = train_epoch(net, spotter, optimizer, schedule, data, options, epoch)
        scores = evaluate(net, data, options.scored)
        row = {"epoch": epoch, "loss": loss, "bleu_4": scores.bleu[3], "cider": scores.cider}
        history.append(row | {"seconds": time.perf_counter() - started})
        print(
            f"\repoch {epoch + 1}/{options.epochs}  loss {loss:.3f}  BLEU-4 {scores.bleu[3]:.4f}  "
            f"CIDEr {scores.cider:.3f}  {history[-1]['seconds']:.0f} s",
            flush=True,
        )
        save_state(options.out / "last.pt", parts, history)
        save_rows(options.out / "metrics.jsonl", history)
        plot(history, options.out / "curve.png")
        show(net, data, options.out / "captions.png")
    save_weights(options.out / "model.safetensors", net.state_dict())


def encoder_weights(path: Path | None) -> dict[str, Tensor]:
    """Return the backbone's weights: torchvision's file, or the shipped detector's."""
    if path:
        weights = torch.load(path, weights_only=True)
        left_behind = ("features.18.", "classifier.")
        return {k: v for k, v in weights.items() if not k.startswith(left_behind)}
    prefix = "backbone.body."
    found = load_file(_DETECTOR).items()
    return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}


def train_epoch(
    net: Captioner,
    spotter: nn.Linear,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Data,
    options: argparse.Namespace,
    epoch: int,
) -> float:
    """Train on new frames; return the mean loss of a word."""
    net.train()
    torch.manual_seed(options.seed * 10_000 + epoch)  # for the dropout
    losses = []
    for step in range(options.steps):
        first = (epoch * options.steps + step) * options.batch
        examples = [data.example(first + i) for i in range(options.batch)]
        given, wanted = tokens_of([said for _, said, _ in examples], data.vocabulary)
        pixels = pixels_of([frame for frame, _, _ in examples])
        logits, places = net.train_step(pixels, given)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        where = torch.from_numpy(np.stack([where for _, _, where in examples])).long()
        (loss + words_seen(spotter, places, wanted, where)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if sys.stderr.isatty():
            print(f"\r  {step + 1}/{options.steps}", end="", file=sys.stderr, flush=True)
    return float(np.mean(losses))


def words_seen(spotter: nn.Linear, places: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Return the loss of telling which words a caption holds, from some place of the picture.

    It teaches the encoder what things are long before the decoder asks where to look. Where it is
    known `where` a thing is, its word is asked for there. Source: Fang et al. 2015, "From Captions
    to Visual Concepts and Back", section 3, with the largest place instead of a noisy-or.
    """
    scores = spotter(places)
    rows, columns = (
        full // kept for full, kept in zip(where.shape[1:], places.shape[1:3], strict=True)
    )
    known = where[:, rows // 2 :: rows, columns // 2 :: columns]
    if known.any():
        return nn.functional.cross_entropy(scores[known > 0], known[known > 0])
    best = scores.flatten(1, 2).amax(1)
    held = torch.zeros_like(best).scatter(1, wanted.clamp(min=0), 1.0)
    rows = nn.functional.binary_cross_entropy_with_logits(best, held, reduction="none")
    return rows.sum(1).mean()


def pixels_of(frames: Sequence[Frame]) -> Tensor:
    """Return `float32[N, 3, H, W]`, normalised."""
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def tokens_of(captions: Sequence[list[str]], vocabulary: list[str]) -> tuple[Tensor, Tensor]:
    """Return what goes in, int64[N, T], and what shall come out; short captions are padded."""
    ids = {word: index for index, word in enumerate(vocabulary)}
    length = min(MAX_LENGTH, max(map(len, captions))) + 1
    given = torch.full((len(captions), length), ids[END])
    wanted = torch.full((len(captions), length), _IGNORED)
    for row, caption in enumerate(captions):
        said = torch.tensor([ids[word] for word in caption[: length - 1]])
        given[row, 0], given[row, 1 : len(said) + 1] = ids[START], said
        wanted[row, : len(said)] = said
        if len(caption) < length:
            wanted[row, len(said)] = ids[END]
    return given, wanted


def say(net: Captioner, frames: Sequence[Frame], vocabulary: list[str]) -> list[str]:
    """Return the caption of each frame, the likeliest word at every step."""
    end = vocabulary.index(END)
    net.eval()
    with torch.no_grad():
        features = net.encode(pixels_of(frames))
        state = net.start(features)
        token = torch.full((len(frames),), vocabulary.index(START))
        rows = []
        for _ in range(MAX_LENGTH):
            logits, state, _ = net.step(token, state, features)
            token = logits.argmax(1)
            rows.append(token)
    captions = []
    for ids in torch.stack(rows, 1).tolist():
        ids = ids[: ids.index(end)] if end in ids else ids
        captions.append(written([vocabulary[i] for i in ids]))
    return captions


def evaluate(net: Captioner, data: Data, count: int, batch: int = 20) -> CaptionScores:
    """Score the captions of `count` frames that are kept out of training."""
    said, truth = [], []
    for first in range(0, min(count, data.unseen_count), batch):
        last = min(first + batch, count, data.unseen_count)
        examples = [data.unseen(index) for index in range(first, last)]
        said += say(net, [frame for frame, _ in examples], data.vocabulary)
        truth += [captions for _, captions in examples]
    return caption_scores(said, truth)


def show(net: Captioner, data: Data, path: Path) -> None:
    """Draw what the net says of twelve pictures; where it differs, what was wanted is beneath."""
    examples = [data.unseen(index) for index in range(min(12, data.unseen_count))]
    said = say(net, [frame for frame, _ in examples], data.vocabulary)
    height, width = (side * 2 for side in examples[0][0].shape[:2])
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (width * 4, (height + 40) * -(-len(examples) // 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, ((frame, truth), caption) in enumerate(zip(examples, said, strict=True)):
        x, y = index % 4 * width, index // 4 * (height + 40)
        sheet.paste(Image.fromarray(frame).resize((width, height)), (x, y))
        draw.text((x + 4, y + height + 2), caption, "black", font)
        if caption not in truth:
            draw.text((x + 4, y + height + 20), truth[0], "red", font)
    sheet.save(path)


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and BLEU-4 over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss of a word", yscale="log")
    right = left.twinx()
    right.plot(epochs, [row["bleu_4"] for row in history], color="tab:blue", label="BLEU-4, unseen")
    right.set(ylabel="BLEU-4", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
