"""The generators and discriminators: shapes, sizes, gradients, seeds, and their graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.export.graph.capture import capture, serialized
from edgevision.models.gan import (
    conditional_digit_discriminator,
    conditional_digit_generator,
    digit_discriminator,
    digit_generator,
    discriminator_64,
    generator_64,
)
from edgevision.models.stylegan import StyleGenerator, style_generator_64

Factory = Callable[[], nn.Module]

GENERATORS: list[tuple[Factory, tuple[int, int, int], int]] = [
    (digit_generator, (1, 28, 28), 759_681),
    (conditional_digit_generator, (1, 28, 28), 1_387_881),
    (generator_64, (3, 64, 64), 3_576_707),
    (style_generator_64, (3, 64, 64), 2_770_424),
]
PAIRS: list[tuple[Factory, Factory, int]] = [
    (digit_generator, digit_discriminator, 138_689),
    (conditional_digit_generator, conditional_digit_discriminator, 201_409),
    (generator_64, discriminator_64, 2_765_633),
]


def named(cases: list[tuple[object, ...]]) -> list[object]:
    return [pytest.param(*case, id=case[0].__name__) for case in cases]  # type: ignore[attr-defined]


def inputs(net: nn.Module, batch: int, seed: int = 0) -> dict[str, Tensor]:
    """What the generator takes, by its argument's name."""
    rng = torch.Generator().manual_seed(seed)
    found = {"latent": torch.randn(batch, net.latent_size, generator=rng)}
    if isinstance(net, StyleGenerator):
        found["noise"] = torch.randn(batch, net.noise_size, generator=rng)
        found["truncation"] = torch.linspace(1.0, 0.5, batch)[:, None]
    if hasattr(net, "classes"):
        found["label"] = torch.arange(batch) % net.classes
    return found


def trained(factory: Factory, seed: int = 0) -> nn.Module:
    """A net whose running statistics have moved, and whose noise is heard, as after training."""
    torch.manual_seed(seed)
    net = factory().train()
    with torch.no_grad():
        for step in range(5):
            net(**inputs(net, 16, seed=step))
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return net.eval()


@pytest.mark.parametrize(("factory", "shape", "parameters"), named(GENERATORS))
def test_a_generator_makes_pictures_of_its_size(
    factory: Factory, shape: tuple[int, int, int], parameters: int
) -> None:
    net = trained(factory)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with torch.inference_mode():
        for batch in (1, 3):
            images = net(**inputs(net, batch))
            assert images.shape == (batch, *shape)
            assert images.isfinite().all()
        assert images.std() > 0.01
        if not isinstance(net, StyleGenerator):
            assert images.abs().max() <= 1


@pytest.mark.parametrize(("make_generator", "make_judge", "parameters"), named(PAIRS))
def test_a_discriminator_gives_one_value_and_teaches_every_parameter(
    make_generator: Factory, make_judge: Factory, parameters: int
) -> None:
    torch.manual_seed(0)
    generator, judge = make_generator(), make_judge()
    assert sum(p.numel() for p in judge.parameters()) == parameters
    feed = inputs(generator, 20)
    labels = {k: v for k, v in feed.items() if k == "label"}
    logits = judge(generator(**feed), **labels)
    assert logits.shape == (20, 1)
    nn.functional.softplus(-logits).mean().backward()
    for net in (generator, judge):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_a_style_generator_teaches_every_parameter() -> None:
    torch.manual_seed(0)
    net = style_generator_64()
    net(**inputs(net, 4)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("factory", [case[0] for case in GENERATORS])
def test_the_same_seeds_make_the_same_pictures(factory: Factory) -> None:
    one, two, other = trained(factory), trained(factory), trained(factory, seed=1)
    with torch.inference_mode():
        images = one(**inputs(one, 4))
        assert torch.equal(images, two(**inputs(two, 4)))
        assert not torch.allclose(images, other(**inputs(other, 4)), atol=1e-3)
        assert not torch.allclose(images, one(**inputs(one, 4, seed=1)), atol=1e-3)


def test_the_label_changes_the_picture() -> None:
    net = trained(conditional_digit_generator)
    latent = torch.randn(1, net.latent_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        images = net(latent.expand(10, -1), torch.arange(10))
    for i in range(1, 10):
        assert (images[i] - images[0]).abs().max() > 1e-3


def test_full_truncation_leaves_the_mean_picture() -> None:
    net = trained(style_generator_64)
    feed = inputs(net, 4)
    feed["noise"] = feed["noise"][:1].expand(4, -1)
    with torch.inference_mode():
        mean = net(**feed | {"truncation": torch.zeros(4, 1)})
        half = net(**feed | {"truncation": torch.full((4, 1), 0.5)})
        whole = net(**feed | {"truncation": torch.ones(4, 1)})
    torch.testing.assert_close(mean, mean[:1].expand_as(mean))
    assert 0 < half.std(0).mean() < whole.std(0).mean()


def test_scaling_the_activations_is_modulating_the_weights() -> None:
    torch.manual_seed(0)
    net = style_generator_64().layers[1].conv.double()
    x = torch.randn(2, 256, 6, 6, dtype=torch.float64)
    style = torch.randn(2, 128, dtype=torch.float64)
    # Equations 1 and 3 of the paper, on one picture's own weights.
    for i, scale in enumerate(net.affine(style)):
        weight = net.weight * net.gain * scale[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = nn.functional.conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(net(x[i : i + 1], style[i : i + 1]), expected)


def style_generator_16() -> StyleGenerator:
    """The same layers as in `style_generator_64`, which is deployed in test_image_generator."""
    return StyleGenerator(64, 64, (64, 48, 32), image_channels=3, mapping_depth=8)


@pytest.mark.parametrize("factory", [*(case[0] for case in GENERATORS[:-1]), style_generator_16])
def test_the_graph_agrees_with_pytorch_at_any_batch(factory: Factory) -> None:
    net = trained(factory)
    specs, profiles = [], {}
    for name, tensor in inputs(net, 2).items():
        shape = tuple(tensor.shape[1:])
        dtype = DType.from_numpy(tensor.numpy().dtype)
        specs.append(TensorSpec(name, dtype, (DYNAMIC, *shape)))
        profiles[name] = ShapeProfile((1, *shape), (16, *shape), (64, *shape))
    model = capture(net, specs, ["image"], profiles)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [20]
    session = ort.InferenceSession(serialized(model), providers=["CPUExecutionProvider"])
    for count in (1, 7, 64):
        feed = inputs(net, count, seed=count)
        with torch.inference_mode():
            expected = net(**feed).numpy()
        (images,) = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
        assert images.shape == expected.shape
        np.testing.assert_allclose(images, expected, atol=1e-4, rtol=0)
