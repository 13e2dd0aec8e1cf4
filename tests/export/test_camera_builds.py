"""What cameras give, for every task, up to engines: graphs say what eager says, and they build.

    EDGEVISION_TEST_CAMERA=all pytest tests/export/test_camera_builds.py

builds every format with every fit for every task, some ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import edgevision
from edgevision.bundle.tensors import DType
from edgevision.cli import main
from edgevision.engines.registry import unavailable
from edgevision.errors import FrameError
from edgevision.export import (
    Camera,
    Captioner,
    Classification,
    Depth,
    Detection,
    InstanceSegmentation,
    SemanticSegmentation,
)
from edgevision.export.adapters.fit import FITS
from edgevision.export.adapters.frame import CameraInput, FrontEnd
from edgevision.export.graph.capture import capture, serialized
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.preflight import get_target, preflight
from edgevision.export.recipe import export_stage
from edgevision.tasks.camera import VOID
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.pixel_formats import pixel_format, pixel_format_names
from edgevision.tasks.pixel_photos import frame_from_photo
from tests.export import captions
from tests.export.test_classification import SmallClassifier
from tests.export.test_depth import SmallDepth
from tests.export.test_mask_rcnn import CLASSES, small
from tests.parts.nets import NAMES, PHOTOS, run, small_net, write_halves

NET, FRAME = (96, 128), (108, 192)
ORIN = "jetson-orin-jp6"
Adapt = Callable[..., Any]


def coloured() -> nn.Module:
    """Return a net that says which of three colours is strongest around a pixel."""
    net = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        net.weight[:] = torch.eye(3)[..., None, None] / 9
        net.bias[:] = torch.tensor([0.0, 0.05, -0.05])
    return net


class _Boxes(nn.Module):
    """A detector in YOLO's layout: a box around each place of a grid, in pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 7, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.net(x).flatten(2)
        y, x_ = torch.meshgrid(*(torch.arange(side // 8) * 8.0 + 4 for side in NET), indexing="ij")
        centre = torch.stack([x_.flatten(), y.flatten()])[None].expand(len(raw), -1, -1)
        return torch.cat([centre, 12 + 4 * raw[:, 2:4].tanh(), raw[:, 4:].sigmoid()], 1)


ADAPTERS: dict[str, Adapt] = {
    "semantic": lambda c, n=None: SemanticSegmentation(
        coloured(), size=NET, classes=NAMES, camera=c, cameras=n
    ),
    "instance": lambda c, n=None: InstanceSegmentation(
        small(), size=NET, classes=CLASSES, camera=c, cameras=n
    ),
    "classification": lambda c, n=None: Classification(
        SmallClassifier(), size=NET, classes=[f"class {i}" for i in range(7)], camera=c, cameras=n
    ),
    "depth": lambda c, n=None: Depth(SmallDepth(), size=NET, camera=c, cameras=n),
    "detection": lambda c, n=None: Detection(
        _Boxes(), size=NET, classes=["car", "dog", "tree"], score=0.2, camera=c, cameras=n
    ),
    "caption": lambda c, n=None: Captioner(
        captions.trained("gru", attention=True), captions.WORDS, size=captions.SIZE,
        max_length=4, camera=c, cameras=n,
    ),
}  # fmt: skip
_ALL = os.environ.get("EDGEVISION_TEST_CAMERA") == "all"


def camera(name: str, fit: str | None, *, size: tuple[int, int] = FRAME) -> Camera:
    """Return one with padded rows and, where there are any, 12 significant bits."""
    form = pixel_format(name)
    bits = 12 if form.sample_bytes == 2 else None
    return Camera(
        size=size, pixel_format=name, row_bytes=size[1] * form.pixel_bytes + 64, bits=bits, fit=fit
    )


def photos(count: int, size: tuple[int, int] = FRAME) -> list[np.ndarray]:
    return [resize(read_image(path), size) for path in sorted(PHOTOS.glob("*.jpg"))[:count]]


class EveryFormat(nn.Module):
    """All front ends in one graph, each with another fit."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = [
            CameraInput.check(
                (24, 32), None, "rgb", camera=camera(name, FITS[i % 3], size=(36, 48))
            )
            for i, name in enumerate(pixel_format_names())
        ]
        self.ends = nn.ModuleList(FrontEnd(one, (0.5,) * 3, (0.2,) * 3) for one in self.inputs)

    def forward(self, *frames: Tensor) -> Tensor:
        return torch.cat([end(frame) for end, frame in zip(self.ends, frames, strict=True)], 1)


@pytest.mark.skipif(not _ALL, reason="EDGEVISION_TEST_CAMERA=all builds every format")
def test_every_format_is_taken_by_the_builder_in_fp16(tmp_path: Path) -> None:
    module = EveryFormat()
    names = list(pixel_format_names())
    specs = [
        type(one.tensor)(f"frame_{name}", DType.UINT8, one.tensor.shape)
        for name, one in zip(names, module.inputs, strict=True)
    ]
    graph = capture(module, specs, ("pixels",), {})
    picture = photos(1, (36, 48))[0]
    feeds = {
        f"frame_{name}": frame_from_photo(picture, one.layout)[None]
        for name, one in zip(names, module.inputs, strict=True)
    }
    half = to_fp16(graph, samples=[feeds], profiles={}, keep_fp32=()).model
    wanted = run(graph, feeds)["pixels"]
    np.testing.assert_allclose(run(half, feeds)["pixels"], wanted, atol=0.02)
    path = tmp_path / "every.onnx"
    path.write_bytes(serialized(half))
    (checked,) = preflight(path, ORIN)
    assert checked.passed, checked.findings
    assert checked.engine_bytes


def _cases() -> list[tuple[str, str, str | None]]:
    if _ALL:
        return [(t, f, fit) for t in ADAPTERS for f in pixel_format_names() for fit in FITS]
    return [
        ("semantic", "i420", "letterbox"),
        ("semantic", "rggb16", "crop"),
        ("classification", "yuyv", None),
        ("depth", "gray16", "letterbox"),
    ]


@pytest.mark.parametrize(("task", "name", "fit"), _cases())
def test_graphs_of_every_task_say_what_eager_says(
    task: str, name: str, fit: str | None, tmp_path: Path
) -> None:
    adapter = ADAPTERS[task](camera(name, fit))
    layout = adapter._camera.layout
    feeds = [{"frame": frame_from_photo(photo, layout)[None]} for photo in photos(2)]
    stage = export_stage(adapter, precision="fp16", samples=feeds)
    assert all(report.passed for report in stage.parity)
    model = onnx.load_from_string(stage.graphs["fp32"])
    assert {n.op_type for n in model.graph.node if "frame" in n.input} == {"Cast"}
    if _ALL:
        path = tmp_path / "model.onnx"
        path.write_bytes(stage.graphs["fp16"])
        (checked,) = preflight(path, ORIN)
        assert checked.passed, checked.findings
        assert checked.engine_bytes or unavailable(get_target("rtx"))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", ["bgra8", "nv12", "i420", "yuyv", "grbg8"])
def test_class_maps_are_those_of_a_frame_converted_before(name: str, fit: str) -> None:
    adapter = ADAPTERS["semantic"](camera(name, fit))
    layout, graph = adapter._camera.layout, adapter.fused
    placement = graph.camera.placement

    def by_rgb(whole: Tensor) -> np.ndarray:
        """Return the class map of float32[1, 3, H, W], 0 to 255: resized after conversion."""
        top, left, height, width = placement.region
        x = placement.resize(whole[..., top : top + height, left : left + width])
        with torch.no_grad():
            x = placement.with_bars(x) * graph.scale + graph.bias
            found: np.ndarray = graph.answer(graph.module(x)).numpy()
        return found

    same = []
    for photo in photos(12):
        frame = frame_from_photo(photo, layout)
        planes = graph.reader.planes(torch.from_numpy(frame)[None], (0, 0, *layout.size))
        # Chroma on the frame's pixels as the graph brings it to the net's: between its own.
        planes = [
            interpolate(x, size=layout.size, mode="bilinear", align_corners=False) for x in planes
        ]
        found = adapter.reference({"frame": frame[None]})["classes"]
        same.append(found == by_rgb(graph.reader.rgb(planes)))
    # This net has no margin: half a level moves pixels that are as red as green. What is left comes
    # of clipping colours after resizing, and not before.
    assert np.mean(same) >= 0.995


def test_a_bundle_takes_what_the_driver_hands_over(tmp_path: Path) -> None:
    pictures = write_halves(tmp_path / "pictures")
    given = Camera(size=(48, 64), pixel_format="nv12", row_bytes=80, fit="crop")
    adapter = SemanticSegmentation(coloured(), size=(32, 32), classes=NAMES, camera=given)
    summary = edgevision.build(
        adapter, tmp_path / "m.ev", precision="fp16", evaluate=pictures, targets=["host-cpu", "rtx"]
    )
    with edgevision.load(summary.bundle) as model:
        layout = model.decoder.camera.layout
        assert str(layout) == "nv12 48x64, bt601 limited range, rows of 80 bytes"
        buffer = frame_from_photo(resize(read_image(pictures / "00.png"), (48, 64)), layout)
        result = model(buffer.reshape(-1))
        assert result.mask.shape == (48, 64)
        assert (result.mask[:, :8] == VOID).all()
        assert (result.mask[:, 8:56] < 3).all()
        assert sum(result.shares().values()) == pytest.approx(1)
        assert result.colored()[0, 0].tolist() == [0, 0, 0]
        with pytest.raises(FrameError, match="48 rows of luma and 24 of chroma of 80"):
            model(buffer.reshape(-1)[1:])


def test_objects_of_a_letterbox_are_in_the_frame() -> None:
    adapter = ADAPTERS["instance"](camera("rgb8", "letterbox"))
    layout = adapter._camera.layout
    found = adapter.reference({"frame": frame_from_photo(photos(1)[0], layout)[None]})
    boxes = found["boxes"][0, : int(found["count"][0])]
    assert len(boxes) > 3
    assert boxes.min() >= 0
    assert boxes[:, [1, 3]].max() <= FRAME[0]
    assert boxes[:, [0, 2]].max() <= FRAME[1]


def test_what_the_camera_says_is_said_once() -> None:
    given = Camera(size=FRAME, fit="crop")
    with pytest.raises(ValueError, match="leave input_size and channel_order out"):
        Depth(SmallDepth(), size=NET, camera=given, channel_order="bgr")
    with pytest.raises(ValueError, match="the camera's fit is 'crop'; give one"):
        Classification(
            SmallClassifier(), size=NET, classes=list("abcdefg"), camera=given, resize_side=9
        )
    with pytest.raises(ValueError, match="leave no number for pixels"):
        SemanticSegmentation(
            small_net(), size=NET, classes=[f"c{i}" for i in range(256)], camera=given
        )


def test_the_command_line_says_what_the_camera_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "net.toml"
    toml.write_text(
        'source = "tests.export.test_camera_builds:coloured"\nsize = [32, 32]\n'
        f"classes = {list(NAMES)}\nout = 'net.ev'\ntask = 'semantic'\n"
        "camera = {size = [48, 80], pixel_format = 'nv12', row_bytes = 96, pad_value = 0}\n"
        "mean = [0, 0, 0]\n"
    )
    flags = ["--fit", "letterbox", "--pixel-format", "yuyv", "--std", "1,1,1", "--json"]
    wrong = [*flags[:2], "--pixel-format", "nv13"]
    assert main(["build", str(toml), *wrong]) == 2
    assert "Did you mean nv21" in capsys.readouterr().err
    toml.write_text(toml.read_text().replace("row_bytes = 96", "row_bytes = 176"))
    assert main(["build", str(toml), *flags]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "net.ev")]) == 0
    shown = capsys.readouterr().out
    assert "yuyv 48x80, bt601 limited range, rows of 176 bytes: 8448 bytes" in shown
    assert "fit      letterbox, bars of 0 around [6, 0, 19, 32]" in shown
    (tmp_path / "a.yuyv").write_bytes(bytes(8448 * 2))
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "net.ev"), str(tmp_path / "a.yuyv"), "--out", str(out)]) == 0
    assert len(list(out.glob("a-00000?.overlay.jpg"))) == 2
