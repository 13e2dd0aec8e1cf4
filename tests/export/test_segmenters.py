"""FCN and DeepLabV3: the same numbers as torchvision's own modules, and graphs of both."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from edgevision.export import SemanticSegmentation
from edgevision.models.deeplab import (
    deeplabv3_mobilenet_v3_large,
    deeplabv3_resnet50,
)
from edgevision.models.fcn import fcn_resnet50, fcn_resnet101
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.models.mobilenet_v3 import MobileNetV3Large
from edgevision.models.resnet import resnet50
from edgevision.models.segmenter import Segmenter
from tests.parts.nets import frames, run

NETS: dict[str, Callable[..., Segmenter]] = {
    "fcn_resnet50": fcn_resnet50,
    "fcn_resnet101": fcn_resnet101,
    "deeplabv3_resnet50": deeplabv3_resnet50,
    "deeplabv3_mobilenet_v3_large": deeplabv3_mobilenet_v3_large,
}
SIZE = (64, 96)


def settled(net: nn.Module) -> nn.Module:
    """Give the batch norms the statistics of photos, as after training."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # a plain mean of what is seen from here on
            part.reset_running_stats()
    with torch.no_grad():
        net.train()(photos(4))
    return net.eval()


def decided(net: nn.Module) -> nn.Module:
    """Bring the logits well apart and about one level, so that every class has its pixels."""
    head = list(net.classifier.children())[-1]
    with torch.no_grad():
        head.weight.mul_(20)
        head.bias.zero_()
        output = net(photos(4))
        logits = output if isinstance(output, torch.Tensor) else output["out"]
        head.bias.sub_(logits.mean((0, 2, 3)))
    return net


def photos(count: int) -> torch.Tensor:
    pixels = np.concatenate([feed["frame"] for feed in frames(count, SIZE)])
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0 - 0.45) / 0.225


def theirs(torchvision: ModuleType, name: str, *, aux: bool) -> nn.Module:
    torch.manual_seed(0)
    make = getattr(torchvision.models.segmentation, name)
    extra = {"aux_loss": True} if aux else {}
    return settled(make(weights=None, weights_backbone=None, num_classes=5, **extra))


@pytest.mark.parametrize("name", NETS)
def test_torchvision_checkpoints_give_torchvision_logits(
    torchvision: ModuleType, name: str
) -> None:
    wanted = theirs(torchvision, name, aux=True)
    net = NETS[name](5, aux=True).eval()
    net.load_state_dict(wanted.state_dict(), strict=True)
    x = photos(1)[..., 3:, 5:]
    with torch.inference_mode():
        expected, (out, aux) = wanted(x), net.with_aux(x)
        assert expected["out"].std() > 0.01
        torch.testing.assert_close(out, expected["out"], rtol=0, atol=1e-5)
        torch.testing.assert_close(aux, expected["aux"], rtol=0, atol=1e-5)
        assert torch.equal(net(x), out)


def test_the_auxiliary_head_is_dropped_on_request_alone() -> None:
    torch.manual_seed(0)
    full = deeplabv3_mobilenet_v3_large(3, aux=True).eval()
    bare = deeplabv3_mobilenet_v3_large(3).eval()
    with pytest.raises(RuntimeError, match="aux_classifier"):
        bare.load_pretrained(full.state_dict())
    bare.load_pretrained(full.state_dict(), drop_aux=True)
    x = torch.randn(1, 3, *SIZE)
    with torch.inference_mode():
        assert torch.equal(bare(x), full(x))
        with pytest.raises(ValueError, match="no auxiliary head; build it with aux=True"):
            bare.with_aux(x)


@pytest.mark.parametrize(
    ("make", "strides"),
    [
        (lambda s: resnet50(output_stride=s), (4, 8, 16, 32)),
        (MobileNetV2, (2, 4, 8, 16, 32)),
        (MobileNetV3Large, (2, 4, 8, 16, 32, 32)),
    ],
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_keep_their_size_beyond_the_output_stride(
    make: Callable[[int], nn.Module], strides: tuple[int, ...], output_stride: int
) -> None:
    net = make(output_stride).eval()
    with torch.inference_mode():
        maps = net(torch.zeros(1, 3, 64, 128))
    wanted = [min(stride, output_stride) for stride in strides]
    assert [(64 // m.shape[2], 128 // m.shape[3]) for m in maps] == [(s, s) for s in wanted]
    assert [m.shape[1] for m in maps] == list(net.channels)


@pytest.mark.parametrize(
    "make", [MobileNetV2, MobileNetV3Large, lambda s: resnet50(output_stride=s)]
)
def test_an_output_stride_that_no_backbone_has(make: Callable[[int], nn.Module]) -> None:
    with pytest.raises(ValueError, match="output_stride: got 4, expected 8, 16 or 32"):
        make(4)


def test_dilation_sees_what_the_stride_saw() -> None:
    """A dilated net's map, taken at every other place, is the strided net's map."""
    torch.manual_seed(0)
    strided, dilated = MobileNetV2(32).eval(), MobileNetV2(16).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(dilated(x)[-1][..., ::2, ::2], strided(x)[-1])


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_torchvision_modules_export_unchanged(torchvision: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    make = getattr(torchvision.models.segmentation, name)
    net = make(weights=None, weights_backbone=None, aux_loss=True)
    names = [f"c{i}" for i in range(21)]
    adapter = SemanticSegmentation(net, size=(192, 256), classes=names)
    assert agrees(adapter, count=3) >= 1 - 1e-5


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_torchvision_s_mobile_modules_export_unchanged(torchvision: ModuleType, name: str) -> None:
    # As it is made, each of them sees one class everywhere, which would prove nothing.
    net = decided(theirs(torchvision, name, aux=name.startswith("deeplabv3")))
    adapter = SemanticSegmentation(net, size=(192, 256), classes=list("abcde"))
    assert agrees(adapter, count=3) >= 1 - 1e-5


# Those over MobileNetV2 are proven in every form in test_segmenter_builds.
@pytest.mark.parametrize("make", [deeplabv3_resnet50, deeplabv3_mobilenet_v3_large])
def test_graph_says_what_eager_says(make: Callable[[int], Segmenter]) -> None:
    torch.manual_seed(0)
    adapter = SemanticSegmentation(decided(settled(make(5))), size=SIZE, classes=list("abcde"))
    assert agrees(adapter) > 0.999


def agrees(adapter: SemanticSegmentation, count: int = 2) -> float:
    """Return the share of pixels on which the graph and eager PyTorch agree."""
    graph = adapter.to_onnx()
    shares = []
    for feed in frames(count, adapter.inputs[0].shape[1:3]):
        wanted = adapter.reference(feed)["classes"]
        assert len(np.unique(wanted)) > 1, "the test net sees one class alone"
        shares.append(np.mean(run(graph, feed)["classes"] == wanted))
    return float(np.mean(shares))
