"""FCN and DeepLabV3 of the zoo become bundles in every precision, with an engine for RTX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import edgevision
from edgevision.bundle.targets import get_target
from edgevision.engines.registry import unavailable
from edgevision.export import SemanticSegmentation
from edgevision.models.deeplab import deeplabv3_mobilenet_v2
from edgevision.models.fcn import fcn_mobilenet_v2
from edgevision.models.segmenter import Segmenter
from edgevision.tasks.frames import read_image
from tests.parts.nets import teach, write_halves

SIZE = (64, 96)


@pytest.fixture(scope="module")
def taught() -> Segmenter:
    """An FCN that knows four colours."""
    torch.manual_seed(2)
    net = fcn_mobilenet_v2(4)
    teach(net)
    return net


def test_every_precision_of_an_fcn_builds(taught: Segmenter, tmp_path: Path) -> None:
    every_precision_builds(taught, tmp_path)


def test_every_precision_of_a_deeplab_builds(taught: Segmenter, tmp_path: Path) -> None:
    """Its backbone is taught already, which is most of the way."""
    torch.manual_seed(2)
    net = deeplabv3_mobilenet_v2(4)
    net.backbone.load_state_dict(taught.backbone.state_dict())
    every_precision_builds(teach(net), tmp_path)


def every_precision_builds(net: nn.Module, tmp_path: Path) -> None:
    adapter = SemanticSegmentation(net, size=SIZE, classes=list("abcd"))
    pictures = write_halves(tmp_path / "pictures")
    with pytest.warns(UserWarning, match="calibrated on 12 frames"):
        summary = edgevision.build(
            adapter, tmp_path / "m.ev", precision="int8", calibration=pictures,
            targets=["host-cpu", "rtx"],
        )  # fmt: skip
    steps = {report.name.split("/")[0] for report in summary.parity}
    assert steps >= {"fp32", "fp16", "int8", "int8-host"}
    assert all(report.passed for report in summary.parity)
    (stage,) = summary.bundle.manifest.stages
    pending = {artifact.target: artifact.is_pending for artifact in stage.artifacts}
    no_rtx = unavailable(get_target("rtx")) is not None
    assert pending == {"host-cpu": False, "rtx": no_rtx}
    frame = read_image(pictures / "03.png")
    with edgevision.load(summary.bundle) as model:
        mask = model(frame).mask
    agreed = (mask == adapter.reference({"frame": frame[None]})["classes"][0]).mean()
    assert agreed > 0.9
