"""A net that naive INT8 ruins, and that ours keeps: all that is known to hurt, in one graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgevision.export.graph.observe import typed
from edgevision.export.precision.int8 import to_int8
from edgevision.export.precision.quantizer import prepare
from tests.parts.nets import run

Make = Callable[..., onnx.ModelProto]

WIDTH, CLASSES, BATCH = 16, 4, 64
FAR_APART, EXPLODING = 1000.0, 1000.0


def images(seed: int) -> dict[str, np.ndarray]:
    """Coarse patterns with some noise: what a net can tell apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(BATCH, 3, 3, 3)).repeat(4, axis=2).repeat(4, axis=3)
    fine = 0.2 * rng.normal(size=(BATCH, 3, 12, 12))
    return {"x": (coarse + fine).astype(np.float32)}


def stored(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))

    apart = (FAR_APART ** np.linspace(-0.5, 0.5, WIDTH)).reshape(-1, 1, 1, 1)
    exploding = np.ones((WIDTH, 1, 1, 1))
    exploding[3] = EXPLODING
    found = {
        "stem": drawn(WIDTH, 3, 3, 3),
        "wide": drawn(WIDTH, WIDTH, 1, 1) * apart,
        "deep": drawn(WIDTH, 1, 3, 3) / apart,
        "squeeze": drawn(4, WIDTH, 1, 1),
        "excite": drawn(WIDTH, 4, 1, 1),
        "burst": drawn(WIDTH, WIDTH, 1, 1) * exploding,
        "calm": drawn(8, WIDTH, 3, 3) / exploding.reshape(1, -1, 1, 1),
        "thin": drawn(CLASSES, 8),
        "thin_bias": np.zeros(CLASSES),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


@pytest.fixture
def hard(made: Make) -> onnx.ModelProto:
    weights = stored(np.random.default_rng(1))
    model = made(
        [
            ("Conv", ["x", "stem"], ["a"], {"pads": [1] * 4}),
            ("HardSwish", ["a"], ["b"], {}),
            ("Conv", ["b", "wide"], ["c"], {}),
            ("Relu", ["c"], ["d"], {}),
            ("Conv", ["d", "deep"], ["e"], {"pads": [1] * 4, "group": WIDTH}),
            ("HardSwish", ["e"], ["f"], {}),
            ("GlobalAveragePool", ["f"], ["g"], {}),
            ("Conv", ["g", "squeeze"], ["h"], {}),
            ("Relu", ["h"], ["i"], {}),
            ("Conv", ["i", "excite"], ["j"], {}),
            ("HardSigmoid", ["j"], ["k"], {}),
            ("Mul", ["f", "k"], ["l"], {}),
            ("Conv", ["l", "burst"], ["m"], {}),
            ("Relu", ["m"], ["n"], {}),
            ("Conv", ["n", "calm"], ["o"], {"strides": [2, 2], "pads": [1] * 4}),
            ("Relu", ["o"], ["p"], {}),
            ("GlobalAveragePool", ["p"], ["q"], {}),
            ("Flatten", ["q"], ["r"], {}),
            ("Gemm", ["r", "thin", "thin_bias"], ["y"], {"transB": 1}),
        ],
        {"x": [BATCH, 3, 12, 12]},
        weights,
        ["y"],
    )
    # As after training: no class is likelier than others.
    logits = np.concatenate([run(model, images(seed))["y"] for seed in range(4)])
    (bias,) = (i for i in model.graph.initializer if i.name == "thin_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(-logits.mean(axis=0), "thin_bias"))
    return typed(model)


def accuracy(model: onnx.ModelProto, float_net: onnx.ModelProto) -> float:
    """Return the share of pictures that keep their class, of those whose class is no near tie."""
    kept = []
    for seed in range(100, 108):
        wanted, found = (run(graph, images(seed))["y"] for graph in (float_net, model))
        ordered = np.sort(wanted, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > 0.2 * wanted.std()
        kept.append((wanted.argmax(1) == found.argmax(1))[clear])
    return float(np.concatenate(kept).mean())


def test_naive_int8_ruins_it_and_ours_keeps_it(hard: onnx.ModelProto) -> None:
    feeds = [images(seed) for seed in range(20, 36)]
    naive = prepare(hard, feeds, method="minmax", recover=())
    assert naive is not None
    ours = to_int8(hard, feeds)
    lost = {
        "naive": 1 - accuracy(naive.graph(naive.layers), hard),
        "ours": 1 - accuracy(ours.model, hard),
    }
    assert lost["naive"] > 0.2, lost
    assert lost["ours"] <= 0.01, lost
    assert ours.int8.keys() == naive.layers.keys()
