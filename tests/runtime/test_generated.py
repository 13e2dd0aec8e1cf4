"""A generator at run time: seeds to pictures, grids, walks, and everything that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import edgevision
from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.errors import BundleFormatError, FileWriteError, FrameError, WrongTaskError
from edgevision.runtime.files.generate import latent_walk, make_pictures, save_animation
from edgevision.runtime.model import Model
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.generated import GeneratedResult
from edgevision.tasks.seeds import SEED_LIMIT, normal_numbers
from edgevision.tasks.timings import Timings
from tests.parts.tiny_bundles import serialized
from tests.runtime.conftest import bundle as segmenter_bundle  # noqa: F401

INPUTS = [
    {"kind": "normal", "name": "latent", "shape": [12]},
    {"kind": "label", "name": "label", "classes": 5},
    {"kind": "level", "name": "level", "default": 0.5},
]
SPECS = (
    TensorSpec("latent", DType.FLOAT32, (DYNAMIC, 12)),
    TensorSpec("label", DType.INT64, (DYNAMIC,)),
    TensorSpec("level", DType.FLOAT32, (DYNAMIC, 1)),
)
IMAGES = TensorSpec("images", DType.UINT8, (DYNAMIC, 3, 4, 1))
MAX_BATCH = 4


def painted(latent: np.ndarray, label: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What the tiny generator does, in numpy."""
    value = latent * 16 + 40 * label[:, None] * level + 20
    return np.clip(np.rint(value), 0, 255).astype(np.uint8).reshape(-1, 3, 4, 1)


def tiny_generator() -> bytes:
    """Return a graph of `painted`."""
    constants = {"scale": 16.0, "step": 40.0, "offset": 20.0, "low": 0.0, "high": 255.0}
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Mul", ["latent", "scale"], ["scaled"]),
            node("Cast", ["label"], ["number"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["number", "one"], ["column"]),
            node("Mul", ["column", "step"], ["steps"]),
            node("Mul", ["steps", "level"], ["shift"]),
            node("Add", ["scaled", "shift"], ["sum"]),
            node("Add", ["sum", "offset"], ["value"]),
            node("Round", ["value"], ["rounded"]),
            node("Clip", ["rounded", "low", "high"], ["clamped"]),
            node("Reshape", ["clamped", "sides"], ["layout"]),
            node("Cast", ["layout"], ["images"], to=TensorProto.UINT8),
        ],
        "tiny_generator",
        [
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", 12]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("level", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, 4, 1])],
        [
            *(
                onnx.numpy_helper.from_array(np.array(value, np.float32), name)
                for name, value in constants.items()
            ),
            onnx.numpy_helper.from_array(np.array([1]), "one"),
            onnx.numpy_helper.from_array(np.array([-1, 3, 4, 1]), "sides"),
        ],
    )
    return serialized(graph)


def generator_bundle(path: Path) -> Bundle:
    """Publish a bundle of the tiny generator with one golden batch."""
    graph = tiny_generator()
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {
        "latent": rng.standard_normal((1, 2, 12), np.float32),
        "label": np.array([[0, 4]]),
        "level": np.array([[[0.5], [1.0]]], np.float32),
    }
    golden = painted(**{name: values[0] for name, values in feeds.items()})[np.newaxis]
    profiles = {
        spec.name: ShapeProfile((1, *spec.shape[1:]), (2, *spec.shape[1:]), (4, *spec.shape[1:]))
        for spec in SPECS
    }
    with BundleWriter(path) as writer:
        writer.add("stages/main/model.onnx", graph)
        writer.add("stages/main/host-cpu.onnx", graph)
        writer.add_golden("main", feeds, {"images": golden})
        stage = Stage(
            "main",
            "stages/main/model.onnx",
            SPECS,
            (IMAGES,),
            {"images": Tolerance()},
            profiles=profiles,
            artifacts=(Artifact("host-cpu", ORT, "stages/main/host-cpu.onnx", version="1"),),
        )
        settings: dict[str, Any] = {"inputs": INPUTS}
        return writer.publish(Manifest("tiny", "generated", "fp32", settings, (stage,), ()))


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with edgevision.load(generator_bundle(tmp_path / "tiny.ev")) as model:
        yield model


def of_seeds(*seeds: int) -> np.ndarray:
    latent = np.stack([normal_numbers(seed, 0, 12) for seed in seeds])
    label = np.array([seed % 5 for seed in seeds])
    return painted(latent, label, np.full((len(seeds), 1), 0.5))


def test_pictures_hang_on_their_seed_alone(model: Model) -> None:
    seeds = (3, 0, 2**63, 3, 11, 12, 13, 14, SEED_LIMIT - 1)
    result = model.generate(seeds)
    assert result.seeds == seeds
    np.testing.assert_array_equal(result.images, of_seeds(*seeds))
    assert len({picture.tobytes() for picture in result.images}) == len(seeds) - 1
    for i, seed in enumerate(seeds):
        np.testing.assert_array_equal(model.generate(seed).images[0], result.images[i])
    assert result.timings.total_ms > 0


def test_given_values_stand_in_for_drawn_ones(model: Model) -> None:
    latent = np.linspace(-1, 1, 12, dtype=np.float32)
    one_for_all = model.generate(range(6), latent=latent, label=2, level=1.0).images
    expected = painted(latent[np.newaxis], np.array([2]), np.array([[1.0]]))
    np.testing.assert_array_equal(one_for_all, np.repeat(expected, 6, axis=0))
    levels = np.linspace(0, 1, 6)
    each = model.generate(range(6), latent=latent, label=np.arange(6) % 5, level=levels).images
    rows = np.repeat(latent[np.newaxis], 6, axis=0)
    wanted = painted(rows, np.arange(6) % 5, levels[:, np.newaxis].astype(np.float32))
    np.testing.assert_array_equal(each, wanted)


def test_arrays_without_seeds(model: Model) -> None:
    feeds: dict[str, Any] = {
        "latent": np.zeros((2, 12), np.float32),
        "label": np.array([1, 4]),
        "level": np.ones((2, 1), np.float32),
    }
    result = model(feeds)
    assert isinstance(result, GeneratedResult)
    assert result.seeds == ()
    np.testing.assert_array_equal(result.images, painted(**feeds))
    with model.stream(policy="block") as pipeline:
        np.testing.assert_array_equal(pipeline.submit(feeds).result().images, result.images)


GOOD: dict[str, Any] = {
    "latent": np.zeros((2, 12), np.float32),
    "label": np.array([1, 4]),
    "level": np.ones((2, 1), np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": np.zeros((2, 11), np.float32)}, r"float32\[2, 11\], expected latent: float32"),
        ({"latent": np.full((2, 12), np.nan, np.float32)}, "'latent': holds NaN or infinity"),
        ({"latent": np.zeros((2, 12))}, r"got float64\[2, 12\]"),
        ({"label": np.array([0, 5])}, "'label': got 5, expected a class from 0 to 4"),
        ({"label": np.array([-1, 0])}, "'label': got -1"),
        ({"label": np.array([0.0, np.nan])}, r"got float64\[2\]"),
        ({"label": np.zeros(0, np.int64)}, "outside the profile"),
        ({"other": np.zeros(3)}, "this model takes"),
    ],
)
def test_bad_arrays(model: Model, change: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        model({**GOOD, **change})


def test_a_frame_is_no_input_of_a_generator(model: Model) -> None:
    with pytest.raises(FrameError, match=r"got ndarray, expected a dict .*model\.generate"):
        model(np.zeros((3, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"latent": np.zeros(11)},
            r"'latent': got float64\[11\], expected latent: float32\[\?, 12",
        ),
        ({"latent": np.zeros((2, 12))}, "one row for each of 3 seeds, or one for all"),
        ({"latent": np.full(12, np.nan)}, "'latent': holds NaN"),
        ({"latent": "poem"}, "'latent': got <U4"),
        ({"label": 5}, "'label': got 5, expected a class from 0 to 4"),
        ({"label": 1.5}, "'label': got float64"),
        ({"label": [1, 2]}, "each of 3 seeds"),
        ({"level": np.inf}, "'level': holds NaN or infinity"),
        ({"lable": 1}, r"got \['lable'\], this generator takes \['latent', 'label', 'level'\]"),
    ],
)
def test_bad_given_values(model: Model, given: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        model.generate(range(3), **given)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "got none"), (SEED_LIMIT, "got 18446744073709551616"), (-3, "got -3")],
)
def test_bad_seeds(model: Model, seeds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(seeds)


def test_a_segmenter_generates_nothing(segmenter_bundle: Bundle) -> None:  # noqa: F811
    with edgevision.load(segmenter_bundle) as net:
        with pytest.raises(WrongTaskError, match=r"'tiny' is not a generator \(task semantic\)"):
            net.generate(0)
        with pytest.raises(WrongTaskError, match="is not a generator"):
            latent_walk(net, 0)


def test_a_grid_holds_the_pictures_in_rows() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * 50 + np.zeros((2, 3, 3), np.uint8)
    result = GeneratedResult(images, tuple(range(5)), Timings(0, 0, 0))
    grid = result.grid()
    assert grid.shape == (4, 9, 3)
    assert grid[::2, ::3, 0].tolist() == [[0, 50, 100], [150, 200, 0]]
    assert result.grid(columns=5).shape == (2, 15, 3)
    assert result.grid(columns=1)[:, 0, 0].tolist() == [0, 0, 50, 50, 100, 100, 150, 150, 200, 200]
    with pytest.raises(ValueError, match="columns: got 0"):
        result.grid(columns=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_grid_is_the_grid(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, channels), np.uint8)
    result = GeneratedResult(images, (), Timings(0, 0, 0))
    path = result.save(tmp_path / "new" / "grid.png", columns=2)
    with Image.open(path) as picture:
        assert picture.mode == ("L" if channels == 1 else "RGB")
        pixels = np.asarray(picture).reshape(15, 8, channels)
    np.testing.assert_array_equal(pixels, result.grid(columns=2))
    with pytest.raises(ValueError, match=r"got '\.xyz', expected an ending such as \.png"):
        result.save(tmp_path / "grid.xyz")


def test_a_walk_comes_by_every_seed_and_moves_slowly(model: Model) -> None:
    walk = latent_walk(model, (5, 6, 9), steps=8, label=0).astype(int)
    assert walk.shape == (24, 3, 4, 1)
    np.testing.assert_array_equal(walk[::8], model.generate((5, 6, 9), label=0).images)
    strides = np.abs(np.diff(walk, axis=0, append=walk[:1])).max((1, 2, 3))
    jumps = np.abs(np.diff(walk[::8], axis=0)).max((1, 2, 3))
    assert strides.max() < jumps.max() / 2
    with pytest.raises(ValueError, match="steps: got 0"):
        latent_walk(model, 5, steps=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["walk.gif", "walk.mp4"])
def test_an_animation_shows_every_picture(tmp_path: Path, name: str, channels: int) -> None:
    levels = np.array([10, 90, 170, 250], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (4, 15, 9, channels))
    path = save_animation(images, tmp_path / "new" / name)
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            assert picture.n_frames == 4  # type: ignore[attr-defined]
            frames = []
            for i in range(4):
                picture.seek(i)
                frames.append(np.asarray(picture.convert("RGB"), np.uint8))
    else:
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 4
    assert min(frames[0].shape[:2]) >= 134
    for frame, level in zip(frames, levels, strict=True):
        assert np.abs(frame.astype(int) - level).max() <= 6
    with pytest.raises(ValueError, match=r"got '\.avi', expected \.gif or \.mp4"):
        save_animation(images, tmp_path / "walk.avi")


def test_made_pictures_are_counted_and_saved(model: Model, tmp_path: Path) -> None:
    made = make_pictures(model, 7, 9, tmp_path / "grid.png")
    assert (made.count, made.batch) == (9, MAX_BATCH)
    assert made.images_per_s > 0
    with Image.open(tmp_path / "grid.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture)[..., None], model.generate(range(7, 16)).grid()
        )
    make_pictures(model, 7, 2, tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as picture:
        assert picture.n_frames > 16  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["grid.png", "grid.jpg", "grid.tif", "walk.gif", "walk.mp4"])
def test_made_pictures_replace_their_like_alone(model: Model, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    for count in (2, 3):
        make_pictures(model, 7, count, out)
    Image.new("RGB", (8, 8)).save(out, format="PNG")
    theirs = out.read_bytes()
    made = GeneratedResult(np.zeros((2, 3, 4, 1), np.uint8), (), Timings(0, 0, 0))
    with pytest.raises(FileWriteError, match="not known to be made by edgevision"):
        make_pictures(model, 7, 2, out)
    with pytest.raises(FileWriteError, match="not known to be made by edgevision"):
        save_animation(made.images, out) if "walk" in name else made.save(out)
    assert out.read_bytes() == theirs
    make_pictures(model, 7, 2, out, force=True)
    make_pictures(model, 7, 2, out)


@pytest.mark.parametrize(
    ("seed", "count", "message"),
    [
        (0, 0, "count: got 0, expected at least 1"),
        (SEED_LIMIT, 1, "got 18446744073709551616"),
        (SEED_LIMIT - 1, 2, "18446744073709551615 and the 1 after it pass"),
    ],
)
def test_counts_and_seeds_without_pictures(
    model: Model, seed: int, count: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_pictures(model, seed, count)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected a list of inputs"),
        ({"inputs": "latent"}, "expected a list of inputs"),
        ({"inputs": INPUTS[:2]}, "the settings name latent: .*; the graph takes"),
        ({"inputs": []}, "the settings name"),
        ({"inputs": [{**INPUTS[0], "shape": [11]}, *INPUTS[1:]]}, "the settings name"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "classes": 0}, INPUTS[2]]}, "got 0 classes"),
        ({"inputs": [{"kind": "poem"}]}, "is not an input"),
    ],
)
def test_a_bundle_with_other_settings(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    manifest = generator_bundle(tmp_path / "tiny.ev").manifest
    with pytest.raises(BundleFormatError, match=message):
        bundle_decoder(replace(manifest, settings=settings), no_files)


@pytest.mark.parametrize(
    "images",
    [
        replace(IMAGES, dtype=DType.FLOAT32),
        replace(IMAGES, shape=(DYNAMIC, 3, 4, 2)),
        replace(IMAGES, shape=(DYNAMIC, 12)),
    ],
)
def test_a_bundle_with_other_outputs(tmp_path: Path, images: TensorSpec) -> None:
    manifest = generator_bundle(tmp_path / "tiny.ev").manifest
    (stage,) = manifest.stages
    changed = replace(manifest, stages=(replace(stage, outputs=(images,)),))
    with pytest.raises(BundleFormatError, match=r"expected uint8\[\?, H, W, 1 or 3\], got images"):
        bundle_decoder(changed, no_files)


def no_files(path: str) -> bytes:
    raise AssertionError(f"a generator has no file {path}")
