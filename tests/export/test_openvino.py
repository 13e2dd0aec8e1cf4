"""Bundles whose only artifact is OpenVINO's: proven in every precision, and run like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import edgevision
from edgevision.bundle.targets import get_target
from edgevision.engines.registry import unavailable
from edgevision.export import Captioner, SemanticSegmentation
from edgevision.models.unet import unet
from edgevision.tasks.frames import read_image
from tests.export.captions import MAX_LENGTH, SIZE, WORDS, greedy, squares, trained
from tests.parts.nets import teach, write_halves

TARGET = "openvino-cpu"

pytestmark = [
    pytest.mark.skipif(unavailable(get_target(TARGET)) is not None, reason="no OpenVINO"),
    pytest.mark.filterwarnings("ignore:INT8 was calibrated on 12 frames"),
]


@pytest.fixture(scope="module")
def net() -> SemanticSegmentation:
    torch.manual_seed(2)
    return SemanticSegmentation(teach(unet(4, width=8)), size=(64, 96), classes=list("abcd"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_net_is_proven_and_runs(
    precision: str, net: SemanticSegmentation, tmp_path: Path
) -> None:
    pictures = write_halves(tmp_path / "pictures")
    summary = edgevision.build(
        net, tmp_path / "a.ev", precision=precision, calibration=pictures, targets=[TARGET]
    )
    proofs = [report for report in summary.parity if report.name.startswith(f"main/{TARGET}")]
    assert proofs
    assert all(report.passed for report in proofs)
    frame = read_image(pictures / "03.png")
    with edgevision.load(summary.bundle) as model:
        mask = model(frame).mask
        assert "OpenVINO on this CPU" in model.explain()
    assert (mask == net.reference({"frame": frame[None]})["classes"][0]).mean() > 0.9


def test_words_are_those_of_pytorch(tmp_path: Path) -> None:
    net = trained("gru", attention=True)
    adapter = Captioner(net, WORDS, size=SIZE, max_length=MAX_LENGTH, form="step")
    edgevision.build(adapter, tmp_path / "say.ev", targets=["host-cpu", TARGET])
    with edgevision.load_streaming(tmp_path / "say.ev", target=TARGET) as model:
        for index in range(8):
            frame = squares(index)[0]
            assert [word.token for word in model.words(frame)] == greedy(net, frame)[0]
