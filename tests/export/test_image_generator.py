"""Generators as deployed: pictures equal to PyTorch's, engines in every precision, bad input."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import edgevision
from edgevision.bundle.flavours import ORT
from edgevision.bundle.forms import form_for
from edgevision.bundle.parity import compare
from edgevision.bundle.targets import get_target
from edgevision.bundle.tensors import DYNAMIC, Array, ShapeProfile
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuildRequest
from edgevision.errors import ExportError, ParityError
from edgevision.export import ImageGenerator, Label, Level, Normal
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.export.recipe import ExportedStage, export_stage
from edgevision.export.source import resolve
from edgevision.metrics.images import psnr
from edgevision.models.gan import Generator, digit_generator
from edgevision.models.stylegan import StyleGenerator
from edgevision.runtime.session import Session
from edgevision.tasks.task import get_task
from tests.export.test_generators import GENERATORS, Factory, trained

FACTORIES = [case[0] for case in GENERATORS]


@cache
def adapted(factory: Factory) -> ImageGenerator:
    """An adapter of a net whose pictures go from black to white, as after training."""
    net = trained(factory)
    for part in net.modules():
        if isinstance(part, Generator):
            last = part.grow[-2]
            assert isinstance(last, nn.ConvTranspose2d)
            with torch.no_grad():
                last.weight.mul_(30)
    inputs: list[Normal | Label | Level] = [Normal("latent", (net.latent_size,))]
    if isinstance(net, StyleGenerator):
        inputs += [Normal("noise", (net.noise_size,)), Level("truncation", 0.7)]
    if isinstance(classes := getattr(net, "classes", None), int):
        inputs.append(Label("label", classes))
    return ImageGenerator(net, inputs=inputs)


@cache
def exported(factory: Factory) -> ExportedStage:
    """Every graph of the generator; few seeds do, as its layers are all alike."""
    adapter = adapted(factory)
    batches = [adapter.drawn(range(2 * i, 2 * i + 2)) for i in range(8)]
    with pytest.warns(UserWarning, match="calibrated on 8 frames"):
        return export_stage(adapter, precision="int8", samples=batches[:2], calibration=batches)


@pytest.mark.parametrize("factory", FACTORIES)
def test_pictures_are_pytorch_s(factory: Factory) -> None:
    adapter, stage = adapted(factory), exported(factory)
    assert all(report.passed for report in stage.parity)
    for batch in (1, 7, 64):
        feeds = adapter.drawn(range(batch, 2 * batch))
        expected = adapter.reference(feeds)["images"]
        assert expected.dtype == np.uint8
        assert expected.std() > 30
        images = {}
        for step in ("fp32", "fp16"):
            with Session.open(
                stage.graphs[step], flavour=ORT, profiles=adapter.profiles
            ) as session:
                images[step] = session.run(feeds)["images"]
        assert np.abs(expected.astype(int) - images["fp32"]).max() <= 1
        assert psnr(expected, images["fp16"]).min() >= 50


@pytest.mark.parametrize("factory", FACTORIES)
def test_rtx_takes_every_precision_with_a_dynamic_batch(factory: Factory, tmp_path: Path) -> None:
    rtx = get_target("rtx")
    if reason := unavailable(rtx):
        pytest.skip(reason)
    stage = exported(factory)
    for precision in ("fp32", "fp16", "int8"):
        graph, engine = tmp_path / f"{precision}.onnx", tmp_path / f"{precision}.plan"
        graph.write_bytes(stage.graphs[precision])
        result = build_engine(BuildRequest(graph, rtx, engine, stage.profiles))
        assert (tuple(result.inputs), tuple(result.outputs)) == (stage.inputs, stage.outputs)
        assert [spec.shape[0] for spec in (*result.inputs, *result.outputs)] == [DYNAMIC] * (
            len(stage.inputs) + 1
        )
        assert engine.stat().st_size > 0


def test_a_bundle_makes_pictures_of_seeds(tmp_path: Path) -> None:
    adapter = adapted(GENERATORS[1][0])
    bundle = edgevision.build(adapter, tmp_path / "g.ev", targets=["host-cpu"]).bundle
    assert bundle.manifest.provenance["golden_samples"] == "seeds"
    with edgevision.load(bundle) as model:
        result = model.generate(range(70))
        assert result.images.shape == (70, 28, 28, 1)
        # 65 seeds and more take two calls of the engine.
        expected = adapter.reference(adapter.drawn(range(64, 70)))["images"].astype(int)
        assert np.abs(result.images[64:] - expected).max() <= 1
        assert np.abs(model.generate(69).images[0] - expected[5]).max() <= 1


def test_the_shipped_generator_keeps_its_digits_in_int8(tmp_path: Path) -> None:
    adapter = resolve("gan-digits").adapter
    assert isinstance(adapter, ImageGenerator)
    bundle = edgevision.build("gan-digits", tmp_path / "g.ev", precision="int8").bundle
    model = onnx.load_from_string(bundle.read("stages/main/model.onnx"))
    readers = {name: node for node in model.graph.node for name in node.input}
    weights = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.attribute]
    axes = {readers[n.output[0]].op_type: n.attribute[0].i for n in weights}
    assert axes == {"ConvTranspose": 1}  # the first layer and the last stay wide
    feeds = adapter.drawn(range(64))
    with edgevision.load(bundle) as loaded:
        images = loaded.generate(range(64)).images
    assert np.median(psnr(adapter.reference(feeds)["images"], images)) >= 38


class Ramp(nn.Module):
    """A picture that holds its latent's one number everywhere."""

    def forward(self, latent: Tensor) -> Tensor:
        return latent[:, :, None, None].expand(-1, -1, 2, 3) * 1.0


def test_values_become_levels_rounded_and_clamped() -> None:
    adapter = ImageGenerator(Ramp(), inputs=[Normal("latent", (1,))], output_range=(0, 1))
    values = np.array([[-0.5], [0.0], [0.4], [0.999], [1.0], [7.0]], np.float32)
    feeds = {"latent": values}
    images = adapter.reference(feeds)["images"]
    assert images.shape == (6, 2, 3, 1)
    assert images[:, 0, 0, 0].tolist() == [0, 0, 102, 255, 255, 255]
    with Session.open(
        serialized(adapter.to_onnx()), flavour=ORT, profiles=adapter.profiles
    ) as session:
        np.testing.assert_array_equal(session.run(feeds)["images"], images)


class Brighter(ImageGenerator):
    """A generator whose graph is 17 levels darker than what it says of itself."""

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        images = super().reference(feeds)["images"].astype(np.int64)
        return {"images": np.minimum(images + 17, 255).astype(np.uint8)}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_graph_that_makes_other_pictures_is_refused(precision: str) -> None:
    adapter = Brighter(trained(digit_generator), inputs=[Normal("latent", (100,))])
    feeds = adapter.drawn(range(2))
    right = super(Brighter, adapter).reference(feeds)["images"]
    form = form_for(precision, on_gpu=True)
    bar = get_task("generated").tolerances(form, {"images": right})["images"]
    report = compare(adapter.reference(feeds)["images"], right, bar, name=precision)
    assert not report.passed
    with pytest.raises(ParityError, match="fp32 graph does not do what the model does"):
        export_stage(adapter, precision="fp32", samples=[feeds])


def test_the_module_is_left_as_it_was() -> None:
    net = digit_generator().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adapter = ImageGenerator(net, inputs=[Normal("latent", (100,))])
    adapter.reference(adapter.drawn(range(3)))
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


LATENT = Normal("latent", (100,))


@pytest.mark.parametrize(
    ("inputs", "output_range", "message"),
    [
        ([], (-1, 1), "expected distinct names and at least one Normal"),
        ([Label("label", 10)], (-1, 1), "at least one Normal"),
        ([LATENT, LATENT], (-1, 1), "distinct names"),
        ([LATENT], (1, -1), r"output_range: got \(1, -1\), expected \(black, white\)"),
        ([LATENT], (0, float("inf")), "output_range"),
    ],
)
def test_arguments_that_make_no_sense(
    inputs: list[Normal | Label | Level], output_range: tuple[float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ImageGenerator(digit_generator(), inputs=inputs, output_range=output_range)


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (digit_generator(), [Normal("latent", (99,))], r"fails on \(latent: float32\[\?, 99\]\)"),
        (digit_generator(), [LATENT, Label("label", 10)], "fails on"),
        (nn.Identity(), [LATENT], r"gives \[2, 100\] of two seeds, expected pictures"),
        (nn.Flatten(0, 1), [Normal("x", (3, 4, 4))], r"gives \[6, 4, 4\]"),
        (nn.Identity(), [Normal("x", (2, 4, 4))], "1 or 3, H, W"),
    ],
)
def test_modules_that_do_not_fit(
    module: nn.Module, inputs: list[Normal | Label | Level], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        ImageGenerator(module, inputs=inputs)


def test_more_classes_than_the_module_knows() -> None:
    net = GENERATORS[1][0]()
    with pytest.raises(ExportError, match="Name its own latent size and classes"):
        ImageGenerator(net, inputs=[LATENT, Label("label", 11)])


@pytest.mark.parametrize("option", ["calibration", "evaluate"])
def test_folders_are_nothing_for_a_generator(option: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes seeds, not folders of images"):
        edgevision.build("gan-digits", tmp_path / "g.ev", **{option: tmp_path})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_shipped_generator_has_no_size() -> None:
    with pytest.raises(ValueError, match="size: not used with a shipped net of task generated"):
        resolve("gan-digits", size=(28, 28))


def test_the_profile_bounds_one_call() -> None:
    adapter = adapted(digit_generator)
    assert adapter.profiles["latent"] == ShapeProfile((1, 100), (16, 100), (64, 100))
