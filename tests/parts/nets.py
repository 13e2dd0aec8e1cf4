"""Small nets with fixed seeds, and frames that look like something."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn

from edgevision.bundle.flavours import ORT
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.models.unet import unet
from edgevision.runtime.session import Session

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "training"
PHOTOS = ROOT / "examples" / "photos"
SIZE = (36, 52)
NAMES = ("road", "sky", "person")


def import_example(name: str) -> ModuleType:
    """Import a training script beside what it imports, as when it is run."""
    sys.path.insert(0, str(TRAINING))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(TRAINING))


def small_net(seed: int = 0) -> nn.Module:
    """A plain U-Net with statistics in its batch norms, as after training."""
    torch.manual_seed(seed)
    net = unet(len(NAMES), width=4)
    net.train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(2, 3, 48, 48))
        # Logits well apart, so that labels do not hang on the last bit.
        net.head.weight.mul_(20)
    return net.eval()


def frames(count: int, size: tuple[int, int] = SIZE) -> list[Feeds]:
    """Real photos at `size`, as feeds."""
    height, width = size
    paths = sorted(PHOTOS.glob("*.jpg"))[:count]
    assert len(paths) == count
    feeds: list[Feeds] = []
    for path in paths:
        with Image.open(path) as photo:
            pixels = np.asarray(photo.resize((width, height)), np.uint8)
        feeds.append({"frame": pixels[np.newaxis]})
    return feeds


_COLOURS = ((208, 48, 48), (48, 208, 48), (48, 48, 208), (208, 208, 208))
_HALVES = ((0, 1), (2, 3), (1, 2), (3, 0))
_MAX_STEPS = 600


def write_halves(folder: Path, count: int = 12) -> Path:
    """Write pictures of two colours each, as `teach` shows them; every fourth shows other two."""
    folder.mkdir()
    for i in range(count):
        Image.fromarray(_halves(i + i // 4)[0]).save(folder / f"{i:02}.png")
    return folder


def _halves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of two colours with some noise, and each pixel's class."""
    classes = np.repeat(_HALVES[seed % len(_HALVES)], 48)[np.newaxis].repeat(64, axis=0)
    noise = np.random.default_rng(seed).integers(-16, 17, (64, 96, 3))
    return (np.array(_COLOURS)[classes] + noise).astype(np.uint8), classes


def teach(net: nn.Module, read: Callable[[Any], Tensor] = lambda logits: logits) -> nn.Module:
    """Teach the net four colours until it knows them through noise.

    An untrained net is unsure everywhere, and how sure one is after so many steps differs from CPU
    to CPU. So it learns with noise behind every layer, more than INT8 brings, and goes on until it
    is right in spite of it: then no precision moves more than a few pixels between two colours.
    `read` takes the logits, as large as the pictures, out of what the net returns.
    """
    pictures, classes = zip(*(_halves(i) for i in range(len(_HALVES))), strict=True)
    x = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0 - 0.45) / 0.225
    labels = torch.from_numpy(np.stack(classes))
    hooks = []
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.3  # its statistics keep up with a few steps
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            hooks.append(part.register_forward_hook(_noisy))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(_MAX_STEPS):
        net.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(read(net(x)), labels).backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                found = read(net.eval()(x)).argmax(1)
            if (found == labels).float().mean() > 0.99:
                break
    else:
        raise AssertionError(f"the net is not sure after {_MAX_STEPS} steps")
    for hook in hooks:
        hook.remove()
    return net


def _noisy(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    # As rounding is, even between two ends; normal noise takes longer to draw than a layer to run.
    noise = torch.rand_like(output).sub_(0.5).mul_(12**0.5)
    return output + 0.1 * output.detach().std() * noise


def run(model: onnx.ModelProto | bytes, feed: Feeds) -> dict[str, np.ndarray]:
    graph = model if isinstance(model, bytes) else serialized(model)
    with Session.open(graph, flavour=ORT) as session:
        return session.run(feed)
