"""Small captioners that name coloured squares, and searches by plain Python.

    python -m tests.export.captions

trains them again, some minutes, into tests/data/captioners.npz.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgevision.models.captioner import Captioner, FeatureMap, RecurrentDecoder, TransformerDecoder

WORDS = ("<start>", "<end>", "red", "green", "blue", "white", "and")
START, END = 0, 1
SIZE = (16, 16)
MAX_LENGTH = 9
_COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)

_TAUGHT = Path(__file__).parents[1] / "data" / "captioners.npz"

Frame = npt.NDArray[np.uint8]


def squares(index: int) -> tuple[Frame, list[int]]:
    """Return a frame of one to four coloured squares, and their names with "and" between."""
    rng = np.random.default_rng(index)
    frame = rng.integers(0, 40, (*SIZE, 3), np.uint8)
    places = np.sort(rng.permutation(4)[: 1 + index % 4])
    words: list[int] = []
    for place in places.tolist():
        colour = int(rng.integers(4))
        y, x = place // 2 * 8 + 1, place % 2 * 8 + 1
        frame[y : y + 6, x : x + 6] = _COLORS[colour]
        words += [colour + 2] if not words else [6, colour + 2]
    return frame, words


def captioner(decoder: str, *, attention: bool, seed: int = 0) -> Captioner:
    """Build one."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()
    )
    encoder = FeatureMap(backbone, 24, 32)
    head: RecurrentDecoder | TransformerDecoder
    if decoder == "transformer":
        head = TransformerDecoder(
            len(WORDS), 32, max_length=MAX_LENGTH, attention=attention, width=32, layers=2, heads=4
        )
    else:
        head = RecurrentDecoder(
            len(WORDS), 32, cell=decoder, attention=attention, embedding=16, hidden=48
        )
    net = Captioner(encoder, head)
    return net


def untrained(decoder: str, *, attention: bool) -> Captioner:
    """Return one with random weights; its head is centred, so that frames get their own words."""
    net = captioner(decoder, attention=attention).eval()
    head = net.decoder.head
    frames = pixels([squares(index)[0] for index in range(64)])
    with torch.no_grad():
        logits = net(frames, torch.full((64, 1), START))[:, 0]
        scale = 0.15 / logits.std(0)
        head.weight *= scale[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    return net


def trained(decoder: str, *, attention: bool) -> Captioner:
    """Return one that `teach` has taught."""
    net = captioner(decoder, attention=attention)
    prefix = f"{decoder}-{attention}/"
    with np.load(_TAUGHT) as file:
        net.load_state_dict(
            {
                name.removeprefix(prefix): torch.from_numpy(file[name]).float()
                for name in file.files
                if name.startswith(prefix)
            }
        )
    return net.eval()


def teach(decoder: str, *, attention: bool) -> Captioner:
    """Train one for some seconds; nearly every unseen frame then gets its true caption."""
    net = captioner(decoder, attention=attention).train()
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=600)
    for step in range(600):
        examples = [squares(1000 + step * 24 + i) for i in range(24)]
        given = torch.full((24, 8), START)
        wanted = torch.full((24, 8), END)
        for row, (_, words) in enumerate(examples):
            given[row, 1 : len(words) + 1] = torch.tensor(words)
            wanted[row, : len(words)] = torch.tensor(words)
        logits = net(pixels([frame for frame, _ in examples]), given)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def pixels(frames: Sequence[Frame]) -> Tensor:
    """Return frames as the adapter normalises them."""
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@torch.no_grad()
def greedy(net: Captioner, frame: Frame) -> tuple[list[int], float, list[Tensor]]:
    """Return the likeliest word at every step, the score, and the attention of each word."""
    features = net.encode(pixels([frame]))
    state, token = net.start(features), START
    words: list[int] = []
    score, looks = 0.0, []
    while len(words) < MAX_LENGTH:
        logits, state, weights = net.step(torch.tensor([token]), state, features)
        likely = logits[0].log_softmax(0)
        token = int(likely.argmax())
        score += float(likely[token])
        if token == END:
            break
        words.append(token)
        if weights is not None:
            looks.append(weights[0])
    return words, score, looks


@torch.no_grad()
def beam_search(net: Captioner, frame: Frame, beams: int) -> list[tuple[list[int], float]]:
    """Return the hypotheses of a beam search that keeps no state: each prefix is read again."""
    features = net.encode(pixels([frame]))
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(MAX_LENGTH):
        grown = []
        for words, score in alive:
            if words and words[-1] == END:
                grown.append((words, score))
                continue
            state = net.start(features)
            for token in [START, *words]:
                logits, state, _ = net.step(torch.tensor([token]), state, features)
            likely = logits[0].log_softmax(0).double()
            grown += [([*words, k], score + float(likely[k])) for k in range(len(WORDS))]
        grown.sort(key=lambda pair: -pair[1])
        alive = grown[:beams]
        if all(words[-1] == END for words, _ in alive):
            break
    return [([w for w in words if w != END], score) for words, score in alive]


def main() -> None:
    """Train all kinds, and keep their weights in half precision."""
    arrays = {}
    for decoder in ("lstm", "gru", "transformer"):
        for attention in (True, False):
            net = teach(decoder, attention=attention)
            right = [greedy(net, squares(i)[0])[0] == squares(i)[1] for i in range(100)]
            print(decoder, attention, sum(right), "of 100 captions right")
            for name, weights in net.state_dict().items():
                arrays[f"{decoder}-{attention}/{name}"] = weights.half().numpy()
    np.savez_compressed(_TAUGHT, **arrays)


if __name__ == "__main__":
    main()
