"""Depth nets from pixels to metres: parity with eager, bounds, a foreign net, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export import Depth
from edgevision.export.recipe import export_stage
from edgevision.export.source import resolve
from tests.parts.nets import frames, run

SIZE, FRAME = (32, 48), (40, 52)


class SmallDepth(nn.Module):
    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 1, 2, 2)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        y = self.up(self.down(x).relu()).exp()
        return {
            "tensor": lambda: y,
            "flat": lambda: y[:, 0],
            "object": lambda: SimpleNamespace(predicted_depth=y[:, 0]),
            "dict": lambda: {"depth": y},
            "two": lambda: torch.cat([y, y], 1),
            "text": lambda: "far",
        }[self.kind]()


@pytest.mark.parametrize(("kind", "output"), [("tensor", "float32"), ("object", "float16")])
def test_graph_says_what_eager_says(kind: str, output: str) -> None:
    adapter = Depth(
        SmallDepth(kind), size=SIZE, input_size=FRAME, scale=2.5, max_m=6.0, output=output
    )
    graph = adapter.to_onnx()
    for feed in frames(2, FRAME):
        wanted, found = adapter.reference(feed)["depth"], run(graph, feed)["depth"]
        assert (found.dtype.name, found.shape) == (output, (1, *FRAME))
        apart = np.abs(found.astype(np.float32) - wanted.astype(np.float32))
        # float16 has ten bits behind the first.
        assert apart.max() <= 1e-3 * float(wanted.max())
        assert 0 <= found.min() < found.max() <= 6.0
    assert [node.op_type for node in graph.graph.node if "frame" in node.input] == ["Cast"]


@pytest.mark.parametrize("kind", ["flat", "dict"])
def test_nets_return_depth_in_many_ways(kind: str) -> None:
    feed = frames(1, SIZE)[0]
    wanted = Depth(SmallDepth(), size=SIZE).reference(feed)["depth"]
    found = Depth(SmallDepth(kind), size=SIZE).reference(feed)["depth"]
    np.testing.assert_array_equal(found, wanted)


def test_the_scale_is_metres_a_unit() -> None:
    feed = frames(1, SIZE)[0]
    one = Depth(SmallDepth(), size=SIZE).reference(feed)["depth"]
    half = Depth(SmallDepth(), size=SIZE, scale=0.5).reference(feed)["depth"]
    np.testing.assert_allclose(half, one / 2, rtol=1e-6)


def test_a_net_that_nobody_here_wrote_in_every_form() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    net = nn.Sequential(
        nets.BasicUNet(2, 3, 1, features=(4, 4, 8, 8, 16, 4), act="relu"), nn.Softplus()
    )
    adapter = Depth(net, size=SIZE, max_m=80.0)
    feeds = frames(8, SIZE)
    with pytest.warns(UserWarning, match="calibrated on 8 frames"):
        stage = export_stage(adapter, precision="int8", samples=feeds[:3], calibration=feeds)
    reports = {report.name: report for report in stage.parity}
    assert set(reports) == {f"{form}/depth" for form in stage.graphs}
    largest = float(stage.golden_outputs["depth"].max())
    assert reports["fp32/depth"].max_abs <= 1e-3 * largest


def test_float16_on_the_bus_goes_through_the_recipe() -> None:
    adapter = Depth(SmallDepth(), size=SIZE, max_m=50.0, output="float16")
    stage = export_stage(adapter, precision="fp16", samples=frames(2, SIZE))
    assert [spec.dtype.value for spec in stage.outputs] == ["float16"]


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("two", {}, ExportError, r"gives \[1, 2, 32, 48\], expected one number for each pixel"),
        ("text", {}, ExportError, "returns str, expected depths as a tensor"),
        ("tensor", {"scale": 0.0}, ValueError, "metres for each unit"),
        ("tensor", {"max_m": -1.0}, ValueError, "expected metres over 0"),
        ("tensor", {"output": "int8"}, ValueError, "expected one of float32, float16"),
        ("tensor", {"output": "float16"}, ValueError, "float16 ends at 65504"),
    ],
)
def test_bad_use_is_refused(
    kind: str, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Depth(SmallDepth(kind), size=SIZE, **options)  # type: ignore[arg-type]


def test_a_module_of_the_user_by_the_tasks_name() -> None:
    assert resolve(SmallDepth(), task="depth", size=SIZE).adapter.inputs[0].shape == (1, *SIZE, 3)
    with pytest.raises(ValueError, match="give --size HxW"):
        resolve(SmallDepth(), task="depth")
    with pytest.raises(ValueError, match="classes: not used with a net of task depth"):
        resolve(SmallDepth(), task="depth", size=SIZE, classes=["near"])
