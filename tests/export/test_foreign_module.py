"""Nets that nobody here wrote go through without a change to edgevision."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import edgevision
from edgevision.export import SemanticSegmentation
from tests.parts.nets import frames, teach, write_halves


def monai() -> ModuleType:
    """Return MONAI's nets; it takes seconds to import, so not with this file."""
    nets: ModuleType = pytest.importorskip("monai.networks.nets", reason="monai is not installed")
    return nets


def residual_unet() -> nn.Module:
    module: nn.Module = monai().UNet(2, 3, 4, channels=(8, 16, 16), strides=(2, 2), num_res_units=1)
    return module


def test_a_net_of_monai_builds_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = teach(residual_unet())
    adapter = SemanticSegmentation(net, size=(64, 96), classes=list("abcd"), input_size=(72, 96))
    pictures = write_halves(tmp_path / "pictures")
    with pytest.warns(UserWarning, match="calibrated on 12 frames"):
        summary = edgevision.build(
            adapter, tmp_path / "m.ev", precision="int8", calibration=pictures,
            targets=["host-cpu", "rtx"],
        )  # fmt: skip
    states = {a.target: a.is_pending for a in summary.bundle.manifest.stages[0].artifacts}
    assert states == {"host-cpu": False, "rtx": False}
    with edgevision.load(summary.bundle) as model:
        result = model(frames(1, (72, 96))[0]["frame"][0])
    assert result.mask.shape == (72, 96)
