"""What an exporter's pass drops or mistakes is found: on photos, or at the ends of the inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import ParityError
from edgevision.export import SemanticSegmentation, Tensors
from edgevision.export.corners import CORNERS, corner_feeds
from edgevision.export.recipe import export_stage
from tests.parts.nets import NAMES, SIZE, frames

X = TensorSpec("x", DType.FLOAT32, (1, 3, 8, 8))
FEEDS = [{"x": np.random.default_rng(i).uniform(1, 2, X.shape).astype(np.float32)} for i in (0, 1)]


class Directions(nn.Module):
    """Pixels by angle: 0/0 where there is nothing, but for the epsilon."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.norm(dim=1, keepdim=True) + 1e-8)


class Enlarged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Averaged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1)


class TwoHeads(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), x.sqrt()


def no_epsilon(model: onnx.ModelProto) -> None:
    """Take x + 1e-8 for x + 0, as an optimiser does that compares to an absolute tolerance."""
    for stored in model.graph.initializer:
        if stored.data_type == 1 and 0 < np.abs(numpy_helper.to_array(stored)).max() < 1e-7:
            stored.CopyFrom(numpy_helper.from_array(np.zeros(stored.dims, np.float32), stored.name))


def nearest(model: onnx.ModelProto) -> None:
    (node,) = (n for n in model.graph.node if n.op_type == "Resize")
    for attribute in node.attribute:
        if attribute.name == "mode":
            attribute.s = b"nearest"


def whole_windows(model: onnx.ModelProto) -> None:
    """Divide by what lies inside the picture, as count_include_pad=False does."""
    (node,) = (n for n in model.graph.node if n.op_type == "AveragePool")
    kept = [a for a in node.attribute if a.name != "count_include_pad"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("count_include_pad", 0)])


def swapped(model: onnx.ModelProto) -> None:
    first, second = (value.name for value in model.graph.output)
    other = {first: second, second: first}
    for node in model.graph.node:
        node.output[:] = [other.get(name, name) for name in node.output]


class Planted(Tensors):
    """Gives a graph that a pass behind the exporter has changed."""

    plant: Callable[[onnx.ModelProto], None]

    def to_onnx(self) -> onnx.ModelProto:
        model = super().to_onnx()
        self.plant(model)
        return model


@pytest.mark.parametrize(
    ("module", "plant", "found"),
    [
        (Directions, no_epsilon, f"not on an input {CORNERS[0]}"),
        (Enlarged, nearest, "does not do what the model does"),
        (Averaged, whole_windows, "avg_pool2d loses divisor_override"),
        (TwoHeads, swapped, "does not do what the model does"),
    ],
)
def test_what_a_pass_changed_is_found_and_precision_is_not_blamed(
    module: type[nn.Module], plant: Callable[[onnx.ModelProto], None], found: str
) -> None:
    sound = Tensors(module(), inputs=[X])
    export_stage(sound, precision="fp32", samples=FEEDS)
    planted = Planted(module(), inputs=[X])
    planted.plant = plant  # type: ignore[method-assign]
    with pytest.raises(ParityError, match=found) as caught:
        export_stage(planted, precision="fp32", samples=FEEDS)
    assert "Precision has no part in it" in str(caught.value)
    assert "keep_fp32" not in str(caught.value)


class Cosine(nn.Module):
    """A class by angle; a pixel without features is class 2, by its bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 0.05]))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(x / (x.norm(dim=1, keepdim=True) + 1e-8))
        return found


class PlantedFrames(SemanticSegmentation):
    def to_onnx(self) -> onnx.ModelProto:
        model = super().to_onnx()
        no_epsilon(model)
        return model


@pytest.mark.parametrize("made", [SemanticSegmentation, PlantedFrames])
def test_photos_have_features_everywhere_and_a_black_frame_has_none(
    made: type[SemanticSegmentation],
) -> None:
    bright = [{"frame": np.maximum(feed["frame"], 20)} for feed in frames(2)]
    net = made(Cosine(), size=SIZE, classes=NAMES, mean=(0, 0, 0), std=(1, 1, 1))
    if made is SemanticSegmentation:
        export_stage(net, precision="fp32", samples=bright)
        return
    with pytest.raises(ParityError, match="not on an input all at zero"):
        export_stage(net, precision="fp32", samples=bright)


def graph(kind: int, op: str, **attributes: object) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    made = helper.make_graph([node], "g", [value("x", kind, None)], [value("y", 1, None)])
    return helper.make_model(made)


@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 20, 32, 3), (1, 2)), ((1, 3, 20, 32), (2, 3)), ((20, 32), (0, 1))]
)
def test_corners_reach_both_ends_and_one_pixel(
    shape: tuple[int, ...], axes: tuple[int, int]
) -> None:
    sample = np.random.default_rng(0).integers(10, 99, shape, np.uint8)
    found = corner_feeds(graph(2, "Cast", to=1), [{"x": sample}])
    assert list(found) == list(CORNERS)
    zeros, highest, mosaic = (feeds["x"] for feeds in found.values())
    assert not zeros.any()
    assert (highest == 255).all()
    assert set(np.unique(mosaic)) == {0, 255}
    plane = np.moveaxis(mosaic, axes, (0, 1)).reshape(20, 32, -1)
    assert (plane == plane[..., :1]).all()
    quarter = plane[:10, :16, 0]
    assert np.argwhere(quarter).tolist() == [[5, 8]]
    assert plane[:10, 16:].all()


def test_what_may_be_an_index_or_a_size_stays() -> None:
    numbers = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert corner_feeds(graph(7, "Cast", to=1), [{"x": numbers}]) == {}
    assert corner_feeds(graph(1, "Neg"), [{"x": np.ones(4, np.float32)}]) == {}
    bytes_ = np.ones((4, 4), np.uint8)
    assert corner_feeds(graph(2, "Identity"), [{"x": bytes_}]) == {}


def test_of_a_cameras_many_bits_none_is_made_up() -> None:
    sample = np.full((1, 4, 4), 1023, np.uint16)
    found = corner_feeds(graph(4, "Cast", to=1), [{"x": sample}])
    assert max(feeds["x"].max() for feeds in found.values()) == 1023
