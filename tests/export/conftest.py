"""Small nets with fixed seeds, and frames that look like something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image

from edgevision.export import SemanticSegmentation
from tests.export.operators import installed_torchvision
from tests.parts.captures import keep_captures
from tests.parts.nets import NAMES, SIZE, small_net


@pytest.fixture(scope="session", autouse=True)
def captures(tmp_path_factory: pytest.TempPathFactory) -> None:
    keep_captures(tmp_path_factory.getbasetemp())


@pytest.fixture
def torchvision() -> ModuleType:
    return installed_torchvision()


@pytest.fixture(scope="session")
def adapter() -> SemanticSegmentation:
    return SemanticSegmentation(small_net(), size=SIZE, classes=NAMES)


@pytest.fixture(scope="session")
def fp32(adapter: SemanticSegmentation) -> onnx.ModelProto:
    return adapter.to_onnx()


@pytest.fixture
def made() -> Callable[..., onnx.ModelProto]:
    """Makes a one-path float graph from (op, inputs, outputs, attributes) rows."""

    def make(
        rows: list[tuple[str, list[str], list[str], dict[str, object]]],
        shapes: dict[str, list[int]],
        weights: dict[str, np.ndarray],
        outputs: list[str],
    ) -> onnx.ModelProto:
        helper = onnx.helper
        graph = helper.make_graph(
            [
                helper.make_node(op, ins, outs, name=f"{op}{i}", **attributes)
                for i, (op, ins, outs, attributes) in enumerate(rows)
            ],
            "made",
            [helper.make_tensor_value_info(n, 1, s) for n, s in shapes.items()],
            [helper.make_tensor_value_info(n, 1, None) for n in outputs],
            [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)

    return make


@pytest.fixture(scope="session")
def digits_and_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what scenes are pasted from: digits.npz and five photos."""
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    images = np.zeros((10, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = 255
    np.savez(folder / "digits.npz", images=images, labels=np.arange(10, dtype=np.uint8))
    for i in range(5):
        coarse = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(coarse).resize((200, 150)).save(folder / f"{i}.jpg")
    return folder
