"""Nets with a memory: frames through the bundle are eager's own loop, in calls and in pipelines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevision
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, ExportError
from edgevision.export import Camera, Depth, Recurrent, SemanticSegmentation, Tensors
from edgevision.export.graph.capture import serialized
from edgevision.runtime.files.batch import run_files
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.pixel_photos import frame_from_photo
from tests.parts.nets import NAMES, PHOTOS

FRAMES = int(os.environ.get("EDGEVISION_TEST_STATES", "40"))  # by hand 200 and more
SIZE, FRAME, CHANNELS = (24, 32), (36, 48), 6
CAMERA = Camera(size=FRAME, pixel_format="nv12")


class ConvGRU(nn.Module):
    """A small segmenter that remembers: Ballas et al. 2016, section 3, over one convolution."""

    def __init__(self, answers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 4, 3, padding=1)
        self.gates = nn.Conv2d(4 + CHANNELS, 2 * CHANNELS, 3, padding=1)
        self.new = nn.Conv2d(4 + CHANNELS, CHANNELS, 3, padding=1)
        self.say = nn.Conv2d(CHANNELS, answers, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y = self.look(x).relu()
        update, reset = self.gates(torch.cat([y, h], 1)).sigmoid().chunk(2, 1)
        new = self.new(torch.cat([y, reset * h], 1)).tanh()
        h = (1 - update) * h + update * new
        return self.say(h).exp() if self.say.out_channels == 1 else self.say(h), h


def memory(count: int = 1, *, channels: int = CHANNELS) -> dict[str, tuple[int, ...]]:
    return {"memory": (count, channels, *SIZE)}


def depth(**given: Any) -> Depth:
    return Depth(Recurrent(ConvGRU(1), state=memory()), size=SIZE, camera=CAMERA, **given)


def video(count: int) -> list[np.ndarray]:
    """Return NV12 frames of a scene that moves."""
    layout = depth()._camera.layout
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (9, 24, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    return [frame_from_photo(np.roll(scene, i, 1)[:, :48], layout) for i in range(count)]


def eager(adapter: Any, frames: list[np.ndarray], cuts: set[int]) -> list[np.ndarray]:
    """Return the answers of the module itself, in a loop."""
    state: dict[str, np.ndarray] = {}
    said = []
    for number, frame in enumerate(frames):
        found = adapter.reference({"frame": frame[None], **({} if number in cuts else state)})
        state = {"memory": found["memory_next"]}
        said.append(found["depth"][0])
    return said


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("bundle") / "gru.ev"
    return edgevision.build(depth(), out, calibration=PHOTOS).bundle


def test_frames_through_the_bundle_are_eagers_own_loop(bundle: Any) -> None:
    frames, cuts = video(FRAMES), {0, FRAMES // 3, FRAMES // 2}
    expected = eager(depth(), frames, cuts)
    assert np.abs(expected[-1] - eager(depth(), frames[-1:], {0})[0]).max() > 1e-3
    with edgevision.load(bundle) as model:
        said = [model(frame, is_cut=i in cuts).depth for i, frame in enumerate(frames)]
        for found, wanted in zip(said, expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
        model.reset()
        np.testing.assert_allclose(model(frames[0]).depth, expected[0], atol=1e-4, rtol=0)
        with model.stream(policy="block") as pipeline:
            tickets = []
            for i, frame in enumerate(frames):
                if i == FRAMES // 3:
                    pipeline.reset()
                tickets.append(pipeline.submit(frame, is_cut=i == FRAMES // 2))
            for ticket, wanted in zip(tickets, expected, strict=True):
                np.testing.assert_allclose(ticket.result().depth, wanted, atol=1e-4, rtol=0)
        # The pipeline had a state of its own.
        again = eager(depth(), [frames[0], frames[1]], {0})
        np.testing.assert_allclose(model(frames[1]).depth, again[1], atol=1e-4, rtol=0)


def test_the_state_is_proven_and_described(
    bundle: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, outputs = bundle.golden("main")
    assert not inputs["memory"][0].any()
    np.testing.assert_array_equal(inputs["memory"][1], outputs["memory_next"][0])
    from edgevision.cli import main

    assert main(["verify", str(bundle.root)]) == 0
    assert "memory_next: agrees" in capsys.readouterr().out
    assert main(["inspect", str(bundle.root)]) == 0
    assert "state    memory: float32[1, 6, 24, 32], from frame to frame" in capsys.readouterr().out
    with edgevision.load(bundle) as model:
        assert [spec.name for spec in model.session.inputs] == ["frame"]
        texts = [[one.text for one in run_files(model, PHOTOS).frames] for _ in range(2)]
    assert texts[0] == texts[1]


@pytest.mark.filterwarnings("ignore:INT8 was calibrated")
def test_narrow_forms_keep_the_state(tmp_path: Path) -> None:
    net = SemanticSegmentation(
        Recurrent(ConvGRU(), state=memory(2)), size=SIZE, classes=NAMES, camera=CAMERA, cameras=2
    )
    summary = edgevision.build(net, tmp_path / "m.ev", precision="int8", calibration=PHOTOS)
    assert all(report.passed for report in summary.parity)
    frames = video(4)
    with edgevision.load(summary.bundle) as model:
        first = model([frames[0], frames[1]])
        model([frames[2], frames[3]])
        again = model([frames[0], frames[1]], is_cut=True)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_tensors_keep_a_state_of_any_name(tmp_path: Path) -> None:
    inputs = [
        TensorSpec("x", DType.FLOAT32, (1, 3, *SIZE)),
        TensorSpec("h_in", DType.FLOAT32, (1, CHANNELS, *SIZE)),
    ]
    module = ConvGRU()
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((1, 3, *SIZE)).astype(np.float32) for _ in range(FRAMES)]
    h, expected = torch.zeros(1, CHANNELS, *SIZE), []
    with torch.no_grad():
        for x in xs:
            y, h = module(torch.from_numpy(x), h)
            expected.append(y.numpy())
    adapter = Tensors(module, inputs=inputs, state={"h_in": "h_out"})
    path = tmp_path / "net.onnx"
    path.write_bytes(serialized(adapter.to_onnx()))
    for source in (adapter, Tensors(path, state={"h_in": "h_out"})):
        bundle = edgevision.build(source, tmp_path / "t.ev").bundle
        with edgevision.load(bundle) as model:
            for x, wanted in zip(xs, expected, strict=True):
                found = model({"x": x}).outputs
                assert list(found) == ["output0"]
                np.testing.assert_allclose(found["output0"], wanted, atol=1e-4, rtol=0)


def test_a_state_that_cannot_be_handed_on_is_refused(bundle: Any) -> None:
    with pytest.raises(ExportError, match=r"state 'memory': the module takes .* and gives \(1, 6,"):
        Depth(Recurrent(_Grows(), state=memory()), size=SIZE, camera=CAMERA)
    with pytest.raises(ExportError, match="expected an answer and the new state"):
        Depth(Recurrent(_Forgets(), state=memory()), size=SIZE)
    with pytest.raises(ExportError, match="ConvGRU fails"):
        Depth(Recurrent(ConvGRU(1), state=memory(channels=5)), size=SIZE)
    with pytest.raises(ValueError, match="has a state of each camera"):
        depth(cameras=(1, 3))
    with pytest.raises(ValueError, match="their number comes first"):
        depth(cameras=3)
    with pytest.raises(ValueError, match="state: got none"):
        Recurrent(ConvGRU(), state={})
    specs = [TensorSpec("x", DType.FLOAT32, (1, 3, *SIZE)),
             TensorSpec("h", DType.FLOAT32, (1, CHANNELS, *SIZE))]  # fmt: skip
    for state, message in (
        ({"h": "h_out", "x": "x_out"}, "expected an answer and then the state"),
        ({"k": "h_out"}, "state: 'k' to 'h_out'; the model takes x, h"),
        ({"x": "h_out"}, r"the net takes x: float32\[1, 3, 24, 32\] and gives h_out"),
    ):
        with pytest.raises(ExportError, match=message):
            Tensors(ConvGRU(), inputs=specs, state=state)
    manifest = bundle.manifest
    for broken in ({"memory": "depth"}, {"frame": "memory_next"}, {"a": "b"}, 3, {"memory": 3},
                   {"memory": "memory_next", "frame": "depth"}):  # fmt: skip
        settings = {**manifest.settings, "state": broken}
        with pytest.raises(BundleFormatError, match="state"):
            bundle_decoder(replace(manifest, settings=settings), bytes)


class _Forgets(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return x[:, :1] + h[:, :1]


class _Grows(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1], torch.cat([h, h], -1)
