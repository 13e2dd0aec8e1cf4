"""Real engines from real builders, and what is said of graphs that they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.engines.builder import BuildRequest, BuildResult, build_engine, unavailable
from edgevision.engines.gpu import compute_capability
from edgevision.engines.trt import within
from edgevision.errors import BuildError
from edgevision.targets import get_target
from edgevision.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec

Build = Callable[..., BuildResult]
RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    x: tuple[int, list[int | str]] = (TensorProto.FLOAT, [1, 3, 16, 16]),
    y: int = TensorProto.FLOAT,
) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", y, None)],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def node(op: str, ins: str, outs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ins.split(), outs.split(), name=f"the_{op}", **attributes)


def conv(x: tuple[int, list[int | str]] = (TensorProto.FLOAT, [1, 3, 16, 16])) -> bytes:
    return graph([node("Conv", "x w", "c"), node("Relu", "c", "y")], {"w": W}, x=x)


def half_conv() -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "in", to=TensorProto.FLOAT16),
        node("Conv", "h w", "c"),
        helper.make_node("Cast", ["c"], ["y"], "out", to=TensorProto.FLOAT),
    ]
    return graph(nodes, {"w": W.astype(np.float16)})


def int8_conv(zero: int = 0) -> bytes:
    weights = {
        "s": np.array(0.02, np.float32), "z": np.array(zero, np.int8),
        "q": RNG.integers(-127, 127, W.shape).astype(np.int8),
        "ws": np.full(4, 0.01, np.float32), "wz": np.zeros(4, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        helper.make_node("DequantizeLinear", ["q", "ws", "wz"], ["wd"], "weights", axis=0),
        node("Conv", "xd wd", "y"),
    ]
    return graph(nodes, weights)


def pixels() -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "first", to=TensorProto.FLOAT),
        node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c"),
        node("ArgMax", "c", "i", axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["y"], "last", to=TensorProto.UINT8),
    ]
    return graph(nodes, {"w": W}, x=(TensorProto.UINT8, [1, 16, 16, 3]), y=TensorProto.UINT8)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def run(
        data: bytes, target: str = "rtx", name: str = "engine.plan", **options: object
    ) -> BuildResult:
        source = tmp_path / "model.onnx"
        source.write_bytes(data)
        request = BuildRequest(source, get_target(target), tmp_path / name, **options)  # type: ignore[arg-type]
        return build_engine(request)

    return run


needs_rtx = pytest.mark.skipif(
    unavailable(get_target("rtx")) is not None, reason="TensorRT-RTX is not installed"
)


@needs_rtx
@pytest.mark.parametrize("make", [conv, half_conv, int8_conv, pixels])
def test_rtx_builds_every_precision_twice_the_same(make: Callable[[], bytes], build: Build) -> None:
    data = make()
    first, second = build(data), build(data, name="again.plan")
    plan = first.path.read_bytes()
    assert plan[28:32] == b"vtrt"
    assert plan == second.path.read_bytes()
    assert first.built.version.startswith("1.")
    assert first.built.sm == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert "[INFO]" in first.log or "[WARNING]" in first.log


@needs_rtx
def test_rtx_sees_the_tensors_of_the_graph(build: Build) -> None:
    built = build(pixels()).built
    assert built.inputs == (TensorSpec("x", DType.UINT8, (1, 16, 16, 3)),)
    assert built.outputs == (TensorSpec("y", DType.UINT8, (1, 14, 14)),)


@needs_rtx
def test_rtx_dynamic_batch(build: Build) -> None:
    data = conv((TensorProto.FLOAT, ["n", 3, 16, 16]))
    with pytest.raises(BuildError, match=r"need a profile: x: float32\[\?, 3, 16, 16\]"):
        build(data)
    profile = ShapeProfile((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))
    built = build(data, profiles={"x": profile}).built
    assert built.inputs[0].shape == (DYNAMIC, 3, 16, 16)


REFUSED = {
    "NonZero": (
        graph([node("NonZero", "x", "i"), helper.make_node("Cast", ["i"], ["y"], to=1)], {}),
        "node 'the_NonZero'",
    ),
    "asymmetric zero point": (int8_conv(zero=3), "node 'the_"),
    "uint8 before a Cast": (
        graph(
            [node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
             helper.make_node("Cast", ["t"], ["y"], to=1)],
            {}, x=(TensorProto.UINT8, [1, 4, 4, 3]),
        ),
        "no engine could be built|refuses the graph",
    ),
    "TopK 4000": (
        graph([node("TopK", "x k", "y i")], {"k": np.array([4000])}, x=(1, [1, 5000])),
        "no engine could be built",
    ),
    "garbage": (b"this is no ONNX file", "refuses the graph"),
}  # fmt: skip


@needs_rtx
@pytest.mark.parametrize("name", REFUSED)
def test_rtx_refusals_name_the_node(name: str, build: Build, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    with pytest.raises(BuildError, match=message) as caught:
        build(data)
    assert caught.value.log
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_ort_passes_the_graph_on_byte_for_byte(build: Build) -> None:
    result = build(pixels(), "host-cpu", "engine.onnx")
    assert result.path.read_bytes() == pixels()
    assert result.built.sm == ()
    assert result.built.outputs[0].dtype is DType.UINT8


def test_ort_refuses_garbage(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot load the graph"):
        build(b"nonsense", "host-cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.skipif(compute_capability() is not None, reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize("name", ["jetson-orin-jp6", "jetson-orin-jp7", "jetson-thor", "local"])
def test_jetson_is_pending_without_a_gpu(name: str, build: Build) -> None:
    assert unavailable(get_target(name)) == "no NVIDIA GPU on this machine"
    with pytest.raises(BuildError, match=r"no NVIDIA GPU|tensorrt is not installed"):
        build(conv(), name)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.3.0", True), ("10.7.1", True), ("10.2.9", False), ("10.8", False), ("11.0", False)],
)
def test_versions_within_a_range(version: str, fits: bool) -> None:
    assert within(version, "10.3", "10.7") is fits
