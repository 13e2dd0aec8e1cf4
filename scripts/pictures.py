"""Draws docs/pictures/ from the shipped nets: `make pictures`. Look at each before you commit it.

python scripts/pictures.py [NAME ...]      # of the pictures below; all by default
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

import edgevision
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.export import Depth, Tensors

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "examples" / "photos"
OUT = ROOT / "docs" / "pictures"
MAX_BYTES = 160_000
Picture = npt.NDArray[np.uint8]


class FlatRoad(nn.Module):
    """Metres to a flat road, seen by a level camera 1.5 m above it: a net without weights."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32[N, 1, H, W] in metres; above the horizon it is as far as it gets."""
        _, _, height, width = pixels.shape
        below = torch.arange(height).float() - height / 2 + 0.5
        metres = 1.5 * 0.8 * height / below.clamp(min=1)
        return metres.view(1, 1, height, 1).expand(1, 1, height, width)


class Sobel(nn.Module):
    """How steep the brightness of each pixel is: float32[1, H, W, 3] in, float32[1, H, W] out."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the length of the gradient."""
        grey = picture.mean(3, keepdim=True).permute(0, 3, 1, 2)
        kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        both = torch.stack([kernel, kernel.T])[:, None]
        slopes = nn.functional.conv2d(grey, both, padding=1)
        return (slopes**2).sum(1).sqrt()


def photo(path: Path, size: tuple[int, int]) -> Picture:
    """Return a picture as a camera of `size` (H, W) gives it."""
    height, width = size
    return np.asarray(Image.open(path).convert("RGB").resize((width, height)))


def semantic(folder: Path) -> Picture:
    """Street photos, and what unet-camvid in INT8 says of them."""
    edgevision.build("unet-camvid", folder / "a.ev", precision="int8", calibration=PHOTOS)
    rows = []
    with edgevision.load(folder / "a.ev") as model:
        for name in ("bus-road", "rainy-traffic"):
            frame = photo(PHOTOS / f"{name}.jpg", (360, 480))
            rows.append(np.hstack([frame, model(frame).overlay(frame)]))
    return np.vstack(rows)


def differences(folder: Path) -> Picture:
    """The picture that `--evaluate` leaves in a bundle: where INT8 is not what PyTorch is."""
    edgevision.build("unet-camvid", folder / "a.ev", precision="int8", calibration=PHOTOS,
                     evaluate=PHOTOS)  # fmt: skip
    return np.asarray(Image.open(folder / "a.ev" / "reports" / "differences.png").convert("RGB"))


def _scenes(
    net: str, folder: Path, count: int, scale: int, *, least: float | None = None
) -> list[Picture]:
    """Return the overlays of a net's own scenes, enlarged; of objects of a score of `least`."""
    edgevision.build(net, folder / "a.ev")
    found = []
    with edgevision.load(folder / "a.ev") as model:
        for path in sorted((ROOT / "checkpoints" / net / "scenes" / "images").iterdir())[:count]:
            frame = photo(path, (128, 160))
            result = model(frame) if least is None else model(frame).above(least)
            overlay = result.overlay(frame)
            found.append(overlay.repeat(scale, 0).repeat(scale, 1))
    return found


def instance(folder: Path) -> Picture:
    """Digits over photos, and what maskrcnn-digits finds."""
    return np.hstack(_scenes("maskrcnn-digits", folder, 3, 2))


def detection(folder: Path) -> Picture:
    """Digits over photos, and what detector-digits finds."""
    return np.hstack(_scenes("detector-digits", folder, 3, 2, least=0.5))


def captioning(folder: Path) -> Picture:
    """One scene: what captioner-digits says, and where it looked for each word."""
    return _scenes("captioner-digits", folder, 2, 1)[1]


def classification(folder: Path) -> Picture:
    """A bus, and the five labels of mobilenetv2-imagenet."""
    edgevision.build("mobilenetv2-imagenet", folder / "a.ev")
    frame = photo(PHOTOS / "red-bus.jpg", (480, 640))
    with edgevision.load(folder / "a.ev") as model:
        return model(frame).overlay(frame)


def depth(folder: Path) -> Picture:
    """A street, and `FlatRoad`'s metres over their scale."""
    edgevision.build(Depth(FlatRoad(), size=(240, 320), max_m=50.0), folder / "a.ev")
    frame = photo(PHOTOS / "bus-road.jpg", (240, 320))
    with edgevision.load(folder / "a.ev") as model:
        metres = model(frame).with_scale()
    beside = np.full_like(metres, 255)
    beside[: len(frame)] = frame
    return np.hstack([beside, metres])


def generation(folder: Path) -> Picture:
    """What gan-digits makes of the seeds 0 to 31."""
    edgevision.build("gan-digits", folder / "a.ev")
    with edgevision.load(folder / "a.ev") as model:
        grid = model.generate(range(32)).grid(columns=16)
    return grid.repeat(2, 0).repeat(2, 1).repeat(3, 2)


def tensors(folder: Path) -> Picture:
    """A street, and `Sobel` of it."""
    net = Tensors(Sobel(), inputs=[TensorSpec("picture", DType.FLOAT32, (1, 240, 320, 3))])
    edgevision.build(net, folder / "a.ev")
    frame = photo(PHOTOS / "crossing.jpg", (240, 320))
    with edgevision.load(folder / "a.ev") as model:
        (edges,) = model({"picture": frame[None].astype(np.float32)}).outputs.values()
    grey = edges[0].clip(0, 255).astype(np.uint8)
    return np.hstack([frame, np.repeat(grey[..., None], 3, 2)])


PICTURES: dict[str, Callable[[Path], Picture]] = {
    made.__name__: made
    for made in (
        semantic, differences, instance, detection, captioning, classification, depth, generation,
        tensors,
    )
}  # fmt: skip


def main(names: list[str]) -> None:
    """Draw the pictures of `names`."""
    OUT.mkdir(exist_ok=True)
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            picture = Image.fromarray(PICTURES[name](Path(folder)))
        path = OUT / f"{name}.jpg"
        for quality in (88, 75, 60):
            picture.save(path, quality=quality, optimize=True)
            if path.stat().st_size <= MAX_BYTES:
                break
        print(f"{path.name}: {picture.width}x{picture.height}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
