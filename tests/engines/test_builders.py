"""Real engines from real builders, and what is said of graphs that they refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.flavours import TRT_RTX
from edgevision.bundle.targets import TargetProfile, get_target, known_targets
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import builder_for, unavailable
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.errors import BuildError
from edgevision.progress import Progress, silent

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
        data: bytes,
        target: str | TargetProfile = "rtx",
        name: str = "engine.plan",
        progress: Progress = silent,
        **options: object,
    ) -> BuildResult:
        source = tmp_path / "model.onnx"
        source.write_bytes(data)
        profile = get_target(target) if isinstance(target, str) else target
        request = BuildRequest(source, profile, tmp_path / name, **options)  # type: ignore[arg-type]
        return build_engine(request, progress)

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
    assert first.version.startswith("1.")
    assert first.sm == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert first.flavour is TRT_RTX
    assert first.seconds > 0
    assert "[INFO]" in first.log or "[WARNING]" in first.log


@needs_rtx
def test_rtx_sees_the_tensors_of_the_graph(build: Build) -> None:
    result = build(pixels())
    assert result.inputs == (TensorSpec("x", DType.UINT8, (1, 16, 16, 3)),)
    assert result.outputs == (TensorSpec("y", DType.UINT8, (1, 14, 14)),)


@needs_rtx
@pytest.mark.parametrize("dtype", [TensorProto.BOOL, TensorProto.INT32, TensorProto.FLOAT16])
def test_rtx_sees_every_type(dtype: int, build: Build) -> None:
    result = build(graph([node("Identity", "x", "y")], {}, x=(dtype, [1, 8]), y=dtype))
    expected = DType.from_numpy(helper.tensor_dtype_to_np_dtype(dtype))
    assert [spec.dtype for spec in (*result.inputs, *result.outputs)] == [expected] * 2


@needs_rtx
def test_a_type_that_no_target_takes_is_refused(build: Build) -> None:
    dtype = TensorProto.BFLOAT16
    with pytest.raises(BuildError, match=r"tensor 'x' is DataType\.BF16; supported are bool"):
        build(graph([node("Identity", "x", "y")], {}, x=(dtype, [1, 8]), y=dtype))


@needs_rtx
@pytest.mark.parametrize(("sm", "mask"), [(("8.9",), 8), (("8.6", "12.0", "9.9"), 4 + 16)])
def test_rtx_builds_for_the_gpus_of_the_target_alone(
    sm: tuple[str, ...], mask: int, build: Build
) -> None:
    result = build(conv(), dataclasses.replace(get_target("rtx"), sm=sm))
    assert result.sm == tuple(each for each in sm if each != "9.9")
    # Where TensorRT-RTX 1.7 keeps the GPUs in its header.
    assert int.from_bytes(result.path.read_bytes()[32:36], "little") == mask


@needs_rtx
def test_rtx_refuses_gpus_it_does_not_know(build: Build) -> None:
    with pytest.raises(BuildError, match=r"builds for none of the GPUs of 'rtx': SM 8\.7"):
        build(conv(), dataclasses.replace(get_target("rtx"), sm=("8.7",)))


@needs_rtx
def test_the_workspace_reaches_the_builder(build: Build) -> None:
    assert build(conv(), workspace_bytes=64 << 20, optimization_level=0).path.is_file()
    with pytest.raises(BuildError, match="Raise workspace_bytes"):
        build(conv(), workspace_bytes=1)


@pytest.mark.parametrize("wrong", [{"workspace_bytes": 0}, {"optimization_level": 6}])
def test_options_out_of_range_are_misuse(wrong: dict[str, int], build: Build) -> None:
    with pytest.raises(ValueError, match="expected"):
        build(conv(), **wrong)


DYNAMIC_CONV = conv((TensorProto.FLOAT, ["n", 3, 16, 16]))


def bounds(*batches: int, size: int = 16) -> ShapeProfile:
    return ShapeProfile(*((n, 3, size, size) for n in batches))


@needs_rtx
@pytest.mark.parametrize("target", ["rtx", "host-cpu"])
def test_dynamic_batch(target: str, build: Build) -> None:
    result = build(DYNAMIC_CONV, target, profiles={"x": bounds(1, 2, 4)})
    assert result.inputs[0].shape == (DYNAMIC, 3, 16, 16)
    assert result.outputs[0].shape[0] == DYNAMIC


@needs_rtx
@pytest.mark.parametrize("target", ["rtx", "host-cpu"])
@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({}, r"need a profile: x: float32\[\?, 3, 16, 16\]"),
        ({"x": bounds(1, 2, 4), "z": bounds(1, 1, 1)}, r"no input is called \['z'\]"),
        ({"x": bounds(1, 2, 4, size=17)}, r"\(4, 3, 17, 17\)\) does not fit x: float32"),
    ],
    ids=["missing", "unknown", "misfit"],
)
def test_profiles_fit_the_inputs(
    target: str, profiles: dict[str, ShapeProfile], message: str, build: Build
) -> None:
    with pytest.raises(BuildError, match=message):
        build(DYNAMIC_CONV, target, profiles=profiles)


@needs_rtx
def test_a_fixed_input_may_have_a_profile(build: Build) -> None:
    assert build(conv(), profiles={"x": bounds(1, 1, 1)}).inputs[0].shape == (1, 3, 16, 16)


@needs_rtx
def test_progress_goes_from_none_to_all(build: Build) -> None:
    heard: list[tuple[str, int, int]] = []
    build(conv(), progress=lambda *step: heard.append(step))
    steps = [(done, total) for phase, done, total in heard if phase == "Building engine"]
    assert steps == sorted(steps)
    assert steps[0] == (0, steps[0][1])
    assert steps[-1] == (steps[0][1], steps[0][1])


REFUSED = {
    "NonZero": (
        graph([node("NonZero", "x", "i"), helper.make_node("Cast", ["i"], ["y"], to=1)], {}),
        r"node 'the_NonZero' \(NonZero\).*native ops and fixed sizes",
    ),
    "no name": (graph([helper.make_node("NonZero", ["x"], ["y"])], {}, y=7), "node '0'"),
    "asymmetric zero point": (
        int8_conv(zero=3), r"node 'the_QuantizeLinear'.*int8 with zero point 0\."
    ),
    "uint8 before a Cast": (
        graph(
            [node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
             helper.make_node("Cast", ["t"], ["y"], to=1)],
            {}, x=(TensorProto.UINT8, [1, 4, 4, 3]),
        ),
        r"node 'the_Transpose'.*Let Cast be the first op",
    ),
    "TopK 4000": (
        graph([node("TopK", "x k", "y i")], {"k": np.array([4000])}, x=(1, [1, 5000])),
        "no engine could be built for 'rtx'.*the_TopK.*TopK goes to 3840",
    ),
    "garbage": (b"this is not an ONNX file", "refuses the graph.*is ONNX and complete"),
    "more garbage": (b"not ONNX" * 99, "refuses the graph.*is ONNX and complete"),
    "nothing": (b"", "refuses the graph.*is ONNX and complete"),
}  # fmt: skip


@needs_rtx
@pytest.mark.parametrize("name", REFUSED)
def test_rtx_refusals_name_the_node(name: str, build: Build, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    with pytest.raises(BuildError, match=message) as caught:
        build(data)
    # What is not a protocol buffer reaches no builder, which would have something to say.
    assert caught.value.log or "garbage" in name
    # Said on every machine without a driver, whatever the matter is.
    assert "cudaError 35" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


PORTABLE = [
    pytest.param(
        target,
        marks=pytest.mark.skipif(unavailable(get_target(target)) is not None, reason="no runtime"),
    )
    for target in ("host-cpu", "openvino-cpu")
]


@pytest.mark.parametrize("target", PORTABLE)
@pytest.mark.parametrize("make", [pixels, conv, half_conv, int8_conv])
def test_the_graph_is_passed_on_byte_for_byte(
    make: Callable[[], bytes], target: str, build: Build
) -> None:
    graph = make()
    result = build(graph, target, "engine.onnx")
    assert result.path.read_bytes() == graph
    assert result.sm == ()
    kind = DType.UINT8 if make is pixels else DType.FLOAT32
    assert [(spec.name, spec.dtype) for spec in result.outputs] == [("y", kind)]


@pytest.mark.parametrize("target", [*PORTABLE, "local-cpu"])
def test_a_version_is_spelt_as_its_builder_spells_it(target: str, build: Build) -> None:
    result = build(pixels(), target, "engine.onnx")
    assert result.version == builder_for(result.flavour).version()


@pytest.mark.parametrize("target", PORTABLE)
def test_garbage_is_refused(target: str, build: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot load the graph"):
        build(b"nonsense", target)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_ort_takes_no_graph_with_its_weights_elsewhere(build: Build, tmp_path: Path) -> None:
    model = onnx.load_from_string(conv())
    onnx.save(
        model,
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    with pytest.raises(BuildError, match="cannot load the graph"):
        build((tmp_path / "split.onnx").read_bytes(), "host-cpu")


def test_there_must_be_a_folder_for_the_artifact(build: Build) -> None:
    with pytest.raises(BuildError, match=r"there is no folder .*nowhere.* create it"):
        build(conv(), "host-cpu", "nowhere/engine.onnx")


def test_a_folder_in_the_artifacts_place_stays(build: Build, tmp_path: Path) -> None:
    (tmp_path / "engine.plan").mkdir()
    with pytest.raises(BuildError, match="the artifact cannot be put at"):
        build(conv(), "host-cpu")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine.plan", "model.onnx"]


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    request = BuildRequest(tmp_path / "none.onnx", get_target("host-cpu"), tmp_path / "x")
    with pytest.raises(BuildError, match=r"No such file.*none\.onnx"):
        build_engine(request)


@pytest.mark.parametrize("target", known_targets(), ids=lambda target: target.name)
def test_a_request_comes_through_whole(target: TargetProfile, tmp_path: Path) -> None:
    request = BuildRequest(
        tmp_path / "größe.onnx", target, tmp_path / "o", {"x": bounds(1, 2, 3)}, 1 << 40, 0
    )
    assert BuildRequest.from_json(request.to_json()) == request
