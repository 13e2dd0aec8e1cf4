"""Small nets with fixed seeds, and frames that look like something."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgevision.bundle.flavours import ORT
from edgevision.export import SemanticSegmentation
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.models.unet import unet
from edgevision.runtime.session import Session
from tests.export.operators import installed_torchvision

# Each export parses the exporter's 500 translations of operators anew: half of a small net's time.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]

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
    return output + 0.1 * output.detach().std() * torch.randn_like(output)


def run(model: onnx.ModelProto | bytes, feed: Feeds) -> dict[str, np.ndarray]:
    graph = model if isinstance(model, bytes) else serialized(model)
    with Session.open(graph, flavour=ORT) as session:
        return session.run(feed)


@pytest.fixture
def torchvision() -> ModuleType:
    return installed_torchvision()


@pytest.fixture(scope="session")
def adapter() -> SemanticSegmentation:
    return SemanticSegmentation(small_net(), size=SIZE, classes=NAMES)


@pytest.fixture(scope="session")
def fp32(adapter: SemanticSegmentation) -> onnx.ModelProto:
    return adapter.to_onnx()


@pytest.fixture
def made() -> Callable[..., onnx.ModelProto]:
    """Makes a one-path float graph from (op, inputs, outputs, attributes) rows."""

    def make(
        rows: list[tuple[str, list[str], list[str], dict[str, object]]],
        shapes: dict[str, list[int]],
        weights: dict[str, np.ndarray],
        outputs: list[str],
    ) -> onnx.ModelProto:
        helper = onnx.helper
        graph = helper.make_graph(
            [
                helper.make_node(op, ins, outs, name=f"{op}{i}", **attributes)
                for i, (op, ins, outs, attributes) in enumerate(rows)
            ],
            "made",
            [helper.make_tensor_value_info(n, 1, s) for n, s in shapes.items()],
            [helper.make_tensor_value_info(n, 1, None) for n in outputs],
            [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)

    return make


@pytest.fixture(scope="session")
def digits_and_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what scenes are pasted from: digits.npz and five photos."""
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    images = np.zeros((10, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = 255
    np.savez(folder / "digits.npz", images=images, labels=np.arange(10, dtype=np.uint8))
    for i in range(5):
        coarse = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(coarse).resize((200, 150)).save(folder / f"{i}.jpg")
    return folder
