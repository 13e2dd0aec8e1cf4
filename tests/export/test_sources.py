"""The examples that bring nets of other packages, run as users run them, on nets taught here."""

from __future__ import annotations

import importlib
import importlib.util
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.bundle.targets import get_target
from edgevision.engines.registry import unavailable
from tests.export.operators import installed_torchvision
from tests.parts.nets import teach, write_halves

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = (64, 96)
Logits = Callable[[Tensor], Tensor]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def package(name: str) -> ModuleType:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        installed_torchvision()  # which the others import where it is
    return importlib.import_module(name)


def lraspp(folder: Path, patch: pytest.MonkeyPatch) -> Logits:
    """Put a taught net where torchvision keeps the weights that it has fetched."""
    models = package("torchvision").models
    name = "lraspp_mobilenet_v3_large"
    net = models.get_model(name, weights=None, weights_backbone=None)
    net = teach(net, lambda output: output["out"])
    url = models.get_model_weights(name).DEFAULT.url
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(net.state_dict(), checkpoints / url.rsplit("/")[-1])
    patch.setenv("TORCH_HOME", str(folder))
    patch.setattr(sys, "argv", [*sys.argv, "--model", name])
    return lambda x: net(x)["out"]


def smp_unet(folder: Path, patch: pytest.MonkeyPatch) -> Logits:
    smp = package("segmentation_models_pytorch")
    net = smp.Unet(
        "resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(32, 16, 8), classes=4
    )
    net = teach(net, lambda logits: logits)
    net.save_pretrained(folder / "net")
    (folder / "classes.txt").write_text("dark\ndim\nlight\nbright #ffffff\n")
    checkpoint = ["--checkpoint", str(folder / "net"), "--classes", str(folder / "classes.txt")]
    patch.setattr(sys, "argv", [*sys.argv, *checkpoint])
    return net


def segformer(folder: Path, patch: pytest.MonkeyPatch) -> Logits:
    transformers = package("transformers")
    config = transformers.SegformerConfig(
        num_labels=4, hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=32
    )
    net = transformers.SegformerForSemanticSegmentation(config)

    def enlarged(output: object) -> Tensor:
        return interpolate(output.logits, size=SIZE, mode="bilinear")  # type: ignore[attr-defined]

    net = teach(net, enlarged)
    net.save_pretrained(folder / "net")
    patch.setattr(sys, "argv", [*sys.argv, "--checkpoint", str(folder / "net")])
    return lambda x: enlarged(net(x))


@pytest.mark.parametrize(
    ("script", "prepare"),
    [
        ("export/torchvision_nets.py", lraspp),
        ("export/smp_nets.py", smp_unet),
        ("export/segformer.py", segformer),
    ],
)
def test_an_example_builds_the_net_in_every_precision(
    script: str,
    prepare: Callable[..., Logits],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(1)
    out, pictures = tmp_path / "street.ev", write_halves(tmp_path / "pictures")
    monkeypatch.setattr(
        sys, "argv", [script, "--size", "64x96", "--frames", str(pictures), "--out", str(out)]
    )
    logits = prepare(tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match="calibrated on 12 frames"):
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert "int8/classes: agrees" in capsys.readouterr().out

    bundle = Bundle.open(out)
    reports = json.loads(bundle.read("reports/parity.json"))
    assert {r["name"].split("/")[0] for r in reports} >= {"fp32", "fp16", "int8", "int8-host"}
    pending = {a.target: a.is_pending for a in bundle.manifest.stages[0].artifacts}
    no_rtx = unavailable(get_target("rtx")) is not None
    assert pending == {"host-cpu": False, "rtx": no_rtx}
    inputs, outputs = bundle.golden("main")
    pixels = inputs["frame"][:, 0]
    with torch.inference_mode(), edgevision.load(bundle) as model:
        x = ((torch.tensor(pixels) / 255 - MEAN) / STD).permute(0, 3, 1, 2)
        wanted = logits(x).argmax(1).numpy()
        found = np.stack([model(frame).mask for frame in pixels])
    assert len(np.unique(wanted)) == 4
    assert np.mean(outputs["classes"][:, 0] == wanted) > 0.9998  # FP32, normalised another way
    assert np.mean(found == wanted) > 0.97
