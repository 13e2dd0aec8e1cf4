"""Layers of a net that gives one answer a frame: INT8 where its ends stay quiet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgevision.export.graph.observe import typed
from edgevision.export.precision.end_noise import last_layers, wide_by_ends
from edgevision.export.precision.int8 import to_int8
from edgevision.export.precision.quantizer import Quantizer, prepare
from tests.export.test_subgraphs import feeds as loop_feeds
from tests.export.test_subgraphs import recurrence
from tests.parts.nets import run

Make = Callable[..., onnx.ModelProto]
MIN_DB = 34.0

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


def feeds(count: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [{"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)} for _ in range(count)]


@pytest.fixture
def branches(made: Make) -> onnx.ModelProto:
    """A quiet branch of three layers and a loud one, which the answer hardly hears."""
    rng = np.random.default_rng(7)
    weights = {f"w{i}": rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for i in range(3)}
    weights["faint"] = np.full((1, 4, 1, 1), 1e-3, np.float32)
    weights["spread"] = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    weights["spread"][:, 0] *= 1e-4
    weights["burst"] = np.array([200, 1, 1, 1], np.float32).reshape(1, 4, 1, 1)
    rows = [
        ("Conv", ["x", "w0"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], {}),
        ("Mul", ["x", "burst"], ["wide"], {}),
        ("Conv", ["wide", "spread"], ["d"], {}),
        ("Mul", ["d", "faint"], ["e"], {}),
        ("Add", ["c", "e"], ["f"], {}),
        ("Conv", ["f", "w2"], ["y"], {}),
    ]
    return typed(made(rows, {"x": [1, 4, 6, 6]}, weights, ["y"]))


def prepared(model: onnx.ModelProto) -> Quantizer:
    quantizer = prepare(model, feeds(), method="minmax", recover=())
    assert quantizer is not None
    return quantizer


def end_db(model: onnx.ModelProto, quantized: onnx.ModelProto) -> float:
    """Return what a tenth of the feeds lie below, measured another way."""
    found = []
    for feed in feeds():
        right, got = run(model, feed)["y"], run(quantized, feed)["y"]
        found.append(20 * np.log10(np.linalg.norm(right) / np.linalg.norm(right - got)))
    return float(np.percentile(found, 10))


def test_the_ends_stay_as_quiet_as_asked(branches: onnx.ModelProto) -> None:
    quantizer = prepared(branches)
    everything = end_db(branches, quantizer.graph(quantizer.layers))
    for bar in (everything - 1, everything + 1, everything + 3):
        wide = wide_by_ends(quantizer, feeds(), {}, bar)
        kept = [name for name in quantizer.layers if name not in wide]
        assert end_db(branches, quantizer.graph(kept)) >= bar
        assert bool(wide) == (bar > everything)
    assert wide_by_ends(quantizer, feeds(), {}, 200.0).keys() == quantizer.layers.keys()


def test_a_loud_layer_that_the_answer_hardly_hears_is_int8(branches: onnx.ModelProto) -> None:
    quantizer = prepared(branches)
    loudest = min(quantizer.layers, key=lambda name: quantizer.layers[name].snr_db)
    assert loudest == "Conv4"
    done = to_int8(branches, feeds(), method="minmax", recover=(), min_end_snr_db=MIN_DB + 6)
    assert loudest in done.int8
    assert done.kept_float
    assert all("dB at the net's ends by itself" in why for why in done.kept_float.values())


def test_ends_are_the_layers_that_no_other_reads(branches: onnx.ModelProto, made: Make) -> None:
    assert last_layers(branches) == ["y"]
    weights = {name: np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1) for name in ("v", "w")}
    rows = [
        ("Conv", ["x", "v"], ["a"], {}),
        ("Conv", ["a", "w"], ["b"], {}),
        ("Relu", ["b"], ["y"], {}),
        ("Conv", ["a", "v"], ["z"], {}),
    ]
    assert last_layers(typed(made(rows, {"x": [1, 4, 6, 6]}, weights, ["y", "z"]))) == ["b", "z"]


def test_the_body_of_a_loop_has_ends_of_its_own() -> None:
    graph, samples = typed(recurrence()), loop_feeds(8)
    quantizer = prepare(graph, samples, method="minmax", recover=())
    assert quantizer is not None
    assert wide_by_ends(quantizer, samples, {}, 10.0) == {}
    assert wide_by_ends(quantizer, samples, {}, 200.0).keys() == quantizer.layers.keys()
