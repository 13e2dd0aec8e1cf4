"""A camera's NV12 frame to a class map: fused in the graph, against PyAV and numpy around the net.

Then six cameras, their frames in one call, against six calls of the same net for one.

    python -m benchmarks.camera [--json-file FILE] [--rounds 12]

Both ways run the same small net on the same ONNX Runtime with the same threads. The usual way lets
libswscale convert and resize in one pass, scales to float32 in numpy, and runs float tensors; its
class map is taken from logits of the frame's size, as the fused one is, or at the net's size and
then enlarged to the nearest pixel, which is faster and coarser. What crosses the bus to a GPU is
counted, not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from benchmarks.segmentation import Small
from edgevision._optional import require
from edgevision.bench.pairs import measure
from edgevision.bundle.flavours import ORT
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.export import Camera, SemanticSegmentation
from edgevision.export.adapters.frame import IMAGENET_MEAN, IMAGENET_STD
from edgevision.export.build import build
from edgevision.export.graph.capture import capture, serialized
from edgevision.runtime.load import load
from edgevision.runtime.session import Session
from edgevision.tasks.pixel_formats import PixelLayout
from edgevision.tasks.pixel_photos import frame_from_photo

FRAME, NET, CLASSES = (1080, 1920), (512, 1024), 19
BAR = 1.3
CAMERAS, SIX_FRAME, SIX_NET, SIX_BAR = 6, (540, 960), (256, 512), 1.0
Image = npt.NDArray[np.uint8]


class _Enlarged(nn.Module):
    """A net whose logits are enlarged to the frame."""

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.net(x), size=self.size, mode="bilinear", align_corners=False)


def by_swscale(frame: Image) -> npt.NDArray[np.float32]:
    """Return the net's input of an NV12 frame: one pass of libswscale, then numpy."""
    av = require("av", extra="media")
    (height, width), (rows, columns) = FRAME, NET
    picture = av.VideoFrame(width, height, "nv12")
    for plane, part in zip(picture.planes, (frame[:height], frame[height:]), strict=True):
        plane.update(part)
    small = picture.reformat(columns, rows, "rgb24", interpolation="BILINEAR").to_ndarray()
    scaled = (small.astype(np.float32) / 255 - np.array(IMAGENET_MEAN, "f4")) / np.array(
        IMAGENET_STD, "f4"
    )
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[np.newaxis]


def compared(rounds: int) -> list[Row]:
    """Time the ways."""
    torch.manual_seed(0)
    net = Small(CLASSES).eval()
    camera = Camera(size=FRAME, pixel_format="nv12")
    adapter = SemanticSegmentation(
        net, size=NET, classes=[f"c{i}" for i in range(CLASSES)], camera=camera
    )
    spec = TensorSpec("x", DType.FLOAT32, (1, 3, *NET))
    graphs = {
        "fused": serialized(adapter.to_onnx()),
        "same map": serialized(capture(_Enlarged(net, FRAME), [spec], ("y",), {})),
        "nearest": serialized(capture(net, [spec], ("y",), {})),
    }
    coarse = np.random.default_rng(0).integers(0, 256, (*(s // 8 for s in FRAME), 3), np.uint8)
    photo = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1))
    frame = frame_from_photo(photo, PixelLayout.check("nv12", FRAME))
    rows_of, columns_of = (np.arange(f) * n // f for f, n in zip(FRAME, NET, strict=True))
    sessions = {name: Session.open(graph, flavour=ORT) for name, graph in graphs.items()}

    def fused() -> Image:
        found: Image = sessions["fused"].run({"frame": frame[np.newaxis]})["classes"][0]
        return found

    def usual(name: str) -> Image:
        logits = sessions[name].run({"x": by_swscale(frame)})["y"][0]
        found: Image = logits.argmax(0).astype(np.uint8)
        return found if name == "same map" else found[rows_of][:, columns_of]

    ways: dict[str, Callable[[], object]] = {
        "fused": fused,
        "same map": lambda: usual("same map"),
        "nearest": lambda: usual("nearest"),
    }
    try:
        for name in ("same map", "nearest"):
            agreed = float((usual(name) == fused()).mean())
            print(f"{name}: the class maps agree on {agreed:.2%} of pixels")
        times = measure(ways, rounds=rounds, least_calls=1)
    finally:
        for session in sessions.values():
            session.close()
    bars = {"same map": BAR, "nearest": None}
    return [
        row(f"PyAV, numpy over fused, {name}", times.ratio(name, over="fused"), bar, times,
            at_least=True)
        for name, bar in bars.items()
    ]  # fmt: skip


def six_cameras(rounds: int) -> list[Row]:
    """Time six frames in one call against six calls."""
    torch.manual_seed(0)
    net = Small(CLASSES).eval()
    names = [f"c{i}" for i in range(CLASSES)]
    camera = Camera(size=SIX_FRAME, pixel_format="nv12")
    rng = np.random.default_rng(0)
    frames = [
        rng.integers(0, 256, PixelLayout.check("nv12", SIX_FRAME).shape, np.uint8)
        for _ in range(CAMERAS)
    ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        one, six = (
            stack.enter_context(
                load(
                    build(
                        SemanticSegmentation(
                            net, size=SIX_NET, classes=names, camera=camera, cameras=cameras
                        ),
                        f"{folder}/{cameras}.ev",
                    ).bundle
                )
            )
            for cameras in (None, CAMERAS)
        )
        together, alone = six(frames), [one(frame) for frame in frames]
        agreed = np.mean([a.mask == b.mask for a, b in zip(together, alone, strict=True)])
        print(f"six cameras: the class maps agree on {agreed:.4%} of pixels")
        ways: dict[str, Callable[[], object]] = {
            "one call": lambda: six(frames),
            "six calls": lambda: [one(frame) for frame in frames],
        }
        times = measure(ways, rounds=rounds, least_calls=1)
    found = times.ratio("six calls", over="one call")
    return [row("six calls over one call of six cameras", found, SIX_BAR, times, at_least=True)]


def bus_bytes() -> dict[str, tuple[int, int]]:
    """Return the bytes to the device and back: fused, and the usual way with logits of the net."""
    pixels, (rows, columns) = FRAME[0] * FRAME[1], NET
    return {
        "fused": (pixels * 3 // 2, pixels),
        "usual": (3 * rows * columns * 4, CLASSES * rows * columns * 4),
    }


def parser() -> argparse.ArgumentParser:
    return arguments(__doc__, rounds=12)


def main() -> int:
    options = parser().parse_args()
    rows = [*compared(options.rounds), *six_cameras(options.rounds)]
    print(*rows, sep="\n")
    for name, (there, back) in bus_bytes().items():
        print(f"{name}: {there / 1e6:.2f} MB to the device, {back / 1e6:.2f} MB back")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds, bus_bytes=bus_bytes())
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
