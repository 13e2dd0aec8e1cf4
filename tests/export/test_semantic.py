"""Segmentation nets from pixels to classes: parity with eager, every shape of module, bad use."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export import SemanticSegmentation
from edgevision.export.graph.capture import serialized
from edgevision.export.precision.fp16 import to_fp16
from tests.parts.nets import NAMES, SIZE, frames, run, small_net


@pytest.mark.parametrize(
    ("size", "input_size"),
    [((33, 47), (33, 47)), ((32, 48), (45, 61)), ((48, 64), (30, 41))],
)
def test_graph_says_what_eager_says(size: tuple[int, int], input_size: tuple[int, int]) -> None:
    adapter = SemanticSegmentation(small_net(), size=size, classes=NAMES, input_size=input_size)
    graph = serialized(adapter.to_onnx())
    for feed in frames(3, input_size):
        wanted = adapter.reference(feed)["classes"]
        found = run(graph, feed)["classes"]
        assert found.dtype == np.uint8
        assert found.shape == (1, *input_size)
        assert np.mean(found != wanted) <= 1e-3
        assert len(np.unique(wanted)) > 1, "the test net sees one class alone"


def test_normalisation_is_what_the_arguments_say() -> None:
    class Brightness(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    seen: list[Tensor] = []
    adapter = SemanticSegmentation(
        Brightness(), size=SIZE, classes=NAMES, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2)
    )
    feed = frames(1)[0]
    adapter.reference(feed)
    wanted = (feed["frame"] / 255.0 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 0.2]
    np.testing.assert_allclose(seen[-1].permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)


def test_bgr_frames_reach_the_net_as_rgb() -> None:
    rgb = SemanticSegmentation(small_net(), size=SIZE, classes=NAMES)
    bgr = SemanticSegmentation(small_net(), size=SIZE, classes=NAMES, channel_order="bgr")
    feed = frames(1)[0]
    flipped = {"frame": np.ascontiguousarray(feed["frame"][..., ::-1])}
    wanted = rgb.reference(feed)["classes"]
    np.testing.assert_array_equal(bgr.reference(flipped)["classes"], wanted)
    np.testing.assert_array_equal(run(bgr.to_onnx(), flipped)["classes"], wanted)
    assert bgr.settings()["channel_order"] == "bgr"


def test_cast_is_the_first_op(fp32: onnx.ModelProto) -> None:
    readers = [node.op_type for node in fp32.graph.node if "frame" in node.input]
    assert readers == ["Cast"]


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, len(NAMES), 3, padding=1)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        y = self.net(x)
        return {
            "dict": lambda: OrderedDict(out=y, aux=y * 0),
            "object": lambda: SimpleNamespace(logits=y[..., ::4, ::4]),
            "tuple": lambda: (y, None),
            "coarse": lambda: y[..., ::2, ::2],
        }[self.kind]()


@pytest.mark.parametrize("kind", ["dict", "object", "tuple", "coarse"])
def test_nets_return_logits_in_many_ways(kind: str) -> None:
    adapter = SemanticSegmentation(Wrapped(kind), size=SIZE, classes=NAMES)
    feed = frames(1)[0]
    found = run(adapter.to_onnx(), feed)["classes"]
    assert np.mean(found != adapter.reference(feed)["classes"]) <= 1e-3


def test_the_module_is_left_as_it_was() -> None:
    net = small_net().train()
    net.encoder.eval()
    before = {name: part.training for name, part in net.named_modules()}
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    SemanticSegmentation(net, size=SIZE, classes=NAMES).to_onnx()
    assert {name: part.training for name, part in net.named_modules()} == before
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_no_path_of_this_machine_is_in_the_graph(fp32: onnx.ModelProto) -> None:
    data = serialized(fp32)
    assert b"/" + b"home" not in data
    assert b".py" not in data
    assert b"stack_trace" not in data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "got 0, expected 1 to 256 names"),
        ({"classes": "road"}, "got a string"),
        ({"classes": [str(i) for i in range(257)]}, "got 257"),
        ({"classes": ["a", "a", "b"]}, "a name stands twice"),
        ({"classes": [("a", "red"), "b", "c"]}, "expected a name or"),
        ({"size": (0, 4)}, r"size: got \(0, 4\)"),
        ({"size": (10**6, 4)}, "expected .height, width."),
        ({"mean": (1, 2)}, "mean: got"),
        ({"std": (1, 0, 1)}, "std: got"),
        ({"std": (1, float("nan"), 1)}, "std: got"),
        ({"channel_order": "yuv"}, "expected rgb or bgr"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    arguments = {"size": SIZE, "classes": NAMES} | change
    with pytest.raises(ValueError, match=message):
        SemanticSegmentation(small_net(), **arguments)  # type: ignore[arg-type]


def test_classes_that_do_not_fit_the_head() -> None:
    with pytest.raises(ExportError, match=r"logits \[1, 3, 36, 52\], expected \[N, 2, h, w\]"):
        SemanticSegmentation(small_net(), size=SIZE, classes=["road", "sky"])


def test_a_module_that_fails_says_how() -> None:
    with pytest.raises(ExportError, match="fails on a frame of 36x52: RuntimeError"):
        SemanticSegmentation(nn.Conv2d(4, 3, 1), size=SIZE, classes=NAMES)
    with pytest.raises(ExportError, match="returns list, expected logits"):
        SemanticSegmentation(Empty(), size=SIZE, classes=NAMES)


class Empty(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return []


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_what_torch_cannot_export_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    adapter = SemanticSegmentation(DataDependent(), size=SIZE, classes=NAMES)
    with pytest.raises(ExportError, match="torch cannot export") as caught:
        adapter.to_onnx()
    assert len(str(caught.value)) < 700
    assert capfd.readouterr().err == ""


def test_default_colours_differ() -> None:
    adapter = SemanticSegmentation(
        nn.Conv2d(3, 64, 1), size=(4, 4), classes=[f"c{i}" for i in range(64)]
    )
    classes = adapter.settings()["classes"]
    assert isinstance(classes, list)
    assert len({c["color"] for c in classes}) == 64  # type: ignore[index, call-overload]


def test_one_logit_tells_two_classes_apart() -> None:
    net = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.fill_(-1.5)
    adapter = SemanticSegmentation(
        net, size=(8, 8), classes=["dark", "bright"], mean=(0, 0, 0), std=(1, 1, 1)
    )
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    frame[:, :, 4:] = 255
    for half in (False, True):
        graph = adapter.to_onnx()
        graph = to_fp16(graph, samples=[{"frame": frame}]).model if half else graph
        np.testing.assert_array_equal(run(graph, {"frame": frame})["classes"], frame[..., 0] // 255)
    np.testing.assert_array_equal(
        adapter.reference({"frame": frame})["classes"], frame[..., 0] // 255
    )


@pytest.mark.parametrize("names", [["road"], ["road", "sky", "person"]])
def test_one_logit_is_no_answer_among_other_than_two_classes(names: list[str]) -> None:
    with pytest.raises(ExportError, match=r"one logit and \d classes are named, expected two"):
        SemanticSegmentation(nn.Conv2d(3, 1, 1), size=(8, 8), classes=names)


def test_how_label_files_are_read_goes_with_the_net() -> None:
    net = SemanticSegmentation(small_net(), size=SIZE, classes=NAMES)
    net.read_labels_by({"7": "sky", "#FF0000": 0}, 11)
    assert net.settings()["label_map"] == {"7": 1, "#ff0000": 0}
    assert net.settings()["ignore_index"] == 11
    for wrong in ({"7": "skies"}, {"300": 0}, {"#ff": 0}, {"7": 3}, {"7": True}):
        with pytest.raises(ValueError, match=r"label_map: got .* a class's name or index, 0 to 2"):
            net.read_labels_by(wrong, None)
    with pytest.raises(ValueError, match="ignore_index: got 256"):
        net.read_labels_by(None, 256)
