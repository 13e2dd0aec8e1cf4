"""ONNX files as the world has them: `build` takes each, and `check` reads what `build` does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgevision
from edgevision.bundle.tensors import ShapeProfile
from edgevision.cli.build_file import read_named
from edgevision.errors import ExportError, FileReadError, InsufficientMemoryError
from edgevision.export import Tensors
from edgevision.export.preflight import preflight
from edgevision.export.recipe import export_stage
from edgevision.export.samples import golden_samples
from tests.parts.nets import run

W = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LAYER = helper.make_node("MatMul", ["x", "w"], ["y"], "layer")
F32, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


def value(name: str, shape: list[int | str], kind: int = F32) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    stored: dict[str, np.ndarray],
    *,
    batch: int | str = 2,
    opset: int = 17,
    functions: list[onnx.FunctionProto] | None = None,
    **options: object,
) -> Path:
    graph = helper.make_graph(
        nodes, "g", [value("x", [batch, 4])], [value("y", [batch, 3])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    if functions:
        imports.append(helper.make_opsetid("own", 1))
    model = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=functions or [])
    onnx.save(model, path, **options)
    return path


def behind(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [*nodes, LAYER]


def branch(name: str, op: str) -> onnx.GraphProto:
    made = helper.make_node(op, ["x", "w"], [name])
    return helper.make_graph([made], name, [], [value(name, [2, 3])])


CASES = {
    "opset 7": ([LAYER], {"w": W}, {"opset": 7}),
    "opset 23": ([LAYER], {"w": W}, {"opset": 23}),
    "transposed weights": (
        behind(helper.make_node("Transpose", ["v"], ["w"])), {"v": W.T.copy()}, {},
    ),
    "weights behind Identity and Mul": (
        behind(
            helper.make_node("Identity", ["v"], ["u"]), helper.make_node("Mul", ["u", "h"], ["w"])
        ),
        {"v": W * 2, "h": np.array(0.5, np.float32)}, {},
    ),
    "an open size of -1": ([LAYER], {"w": W}, {"batch": -1}),
    "a constant condition": (
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch("t", "MatMul"),
                          else_branch=branch("e", "MatMul"))],
        {"w": W, "yes": np.array(True)}, {},
    ),
    "a function": (
        [helper.make_node("Product", ["x", "w"], ["y"], domain="own")], {"w": W},
        {"functions": [helper.make_function(
            "own", "Product", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 17)],
        )]},
    ),
    "bfloat16 inside": (
        [helper.make_node("Cast", ["x"], ["n"], to=BRAIN),
         helper.make_node("Cast", ["n"], ["m"], to=F32),
         helper.make_node("MatMul", ["m", "w"], ["y"])], {"w": W}, {},
    ),
    "float16 inside": (
        [helper.make_node("Cast", ["x"], ["n"], to=HALF),
         helper.make_node("MatMul", ["n", "w"], ["o"]),
         helper.make_node("Cast", ["o"], ["y"], to=F32)], {"w": W.astype(np.float16)}, {},
    ),
    "external weights": (
        [LAYER], {"w": W},
        {"save_as_external_data": True, "location": "w.bin", "size_threshold": 1},
    ),
    "external weights of a Constant": (
        behind(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W, "w"))), {},
        {"save_as_external_data": True, "location": "c.bin", "size_threshold": 1,
         "convert_attribute": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_answers_and_the_layer_are_there(name: str, tmp_path: Path) -> None:
    nodes, stored, options = CASES[name]
    path = saved(tmp_path / "net.onnx", nodes, stored, **options)
    adapter = Tensors(path)
    graph = adapter.to_onnx()
    (layer,) = [n for n in graph.graph.node if n.op_type in ("MatMul", "Gemm")]
    assert layer.input[1] in {i.name for i in graph.graph.initializer}
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    for answers in (adapter.reference({"x": x}), run(graph, {"x": x})):
        np.testing.assert_allclose(answers["y"], x @ W, rtol=1e-2, atol=1e-2)
    (checked,) = preflight(path, "jetson-orin-jp6")
    assert checked.passed, checked.findings


def test_axes_of_one_name_and_different_bounds_get_names_of_their_own(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [value("x", ["n", 3, "?", "?"])], [value("y", ["n", 3, "?", "?"])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "net.onnx",
    )
    profile = ShapeProfile((1, 3, 8, 16), (1, 3, 8, 16), (2, 3, 8, 16))
    (x,) = Tensors(tmp_path / "net.onnx", profiles={"x": profile}).to_onnx().graph.input
    names = [dim.dim_param for dim in x.type.tensor_type.shape.dim]
    assert names[0] == "n"
    assert len(set(names)) == 4


def embedding(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])], "g",
        [value("ids", [1, 6], TensorProto.INT64)], [value("y", [1, 6, 3])],
        [numpy_helper.from_array(W, "table")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def test_indices_are_drawn_where_they_fit_and_where_they_are_told(tmp_path: Path) -> None:
    adapter = Tensors(embedding(tmp_path / "net.onnx"))
    drawn = {int(i) for f in golden_samples(adapter, None, None)[0] for i in f["ids"].flat}
    assert drawn == {0, 1, 2, 3}
    told, _ = golden_samples(adapter, None, None, {"ids": (2, 3)})
    assert {int(i) for f in told for i in f["ids"].flat} == {2, 3}
    with pytest.raises(ValueError, match="no input is called idx; there are ids"):
        golden_samples(adapter, None, None, {"idx": (0, 1)})
    with pytest.raises(ExportError, match=r"ids: int64.*--samples DIR.*--range"):
        edgevision.build(
            tmp_path / "net.onnx", tmp_path / "net.ev", ranges={"ids": (90, 99)}, cache=None
        )


@pytest.mark.parametrize(
    ("nodes", "inputs", "told"),
    [
        (
            [helper.make_node("Cast", ["x"], ["i"], to=7),
             helper.make_node("Mul", ["i", "k"], ["j"]),
             helper.make_node("Gather", ["t", "j"], ["y"])],
            {"x": (1, [9])}, r"What reaches it is x: --range x=0:8\.$",
        ),
        (
            [helper.make_node("Expand", ["x", "size"], ["y"])],
            {"x": (1, [2, 4]), "size": (7, [2])}, r"is size: --range size=LOW:HIGH\.$",
        ),
        (
            [helper.make_node("Tile", ["x", "times"], ["y"])],
            {"x": (1, [2, 4]), "times": (7, [2])}, r"one value: --range times=N:N \(ranges=\)",
        ),
        (
            [helper.make_node("Log", ["x"], ["y"])], {"x": (1, [2, 4])},
            r"NaN in output 'y'.*--samples DIR.*--range x=LOW:HIGH \(ranges=\)",
        ),
    ],
    ids=["index", "size", "repeats", "logarithm"],
)  # fmt: skip
def test_an_input_that_its_samples_do_not_fit_is_named(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    told: str,
    tmp_path: Path,
) -> None:
    value = helper.make_tensor_value_info
    stored = {"t": np.ones((9, 4), np.float32), "k": np.array(90)}
    held = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    ends = [value(name, *kind) for name, kind in inputs.items()], [value("y", 1, None)]
    made = helper.make_graph(nodes, "g", *ends, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.graph.output[0].CopyFrom(value("y", 1, [None, None]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=told):
        edgevision.build(tmp_path / "net.onnx", tmp_path / "net.ev", cache=None)


def test_samples_are_what_a_graph_is_proven_on(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", [LAYER], {"w": W}, batch="n")
    np.savez(tmp_path / "0.npz", x=np.full((3, 4), 7, np.float32))
    shapes = read_named("shapes", ["x=3x4:3x4:5x4"])
    assert shapes == {"x": ShapeProfile((3, 4), (3, 4), (5, 4))}
    made = edgevision.build(
        path, tmp_path / "n.ev", samples=tmp_path, shapes=shapes, precision="fp16", cache=None
    )
    golden, _ = made.bundle.golden("main")
    np.testing.assert_array_equal(golden["x"], np.full((1, 3, 4), 7, np.float32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileReadError, match="expected files with the inputs: x"):
        edgevision.build(path, tmp_path / "n.ev", samples=tmp_path / "empty", cache=None)


def test_q_and_dq_of_a_file_are_int8_without_calibration(tmp_path: Path) -> None:
    scale = {"s": np.array(0.05, np.float32), "z": np.array(0, np.int8)}
    levels = np.clip(np.rint(W / 0.05), -127, 127).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["v", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], "layer"),
    ]
    path = saved(tmp_path / "net.onnx", nodes, {"v": levels, **scale})
    made = edgevision.build(path, tmp_path / "n.ev", precision="int8", cache=None)
    assert "calibration_count" not in made.bundle.manifest.provenance
    assert b"scales as the model brings them" in made.bundle.read("reports/layers.json")
    lopsided = saved(tmp_path / "u.onnx", nodes, {"v": levels, **scale, "z": np.array(3, np.int8)})
    with pytest.raises(ExportError, match="zero point is not 0"):
        edgevision.build(lopsided, tmp_path / "u.ev", precision="int8", cache=None)


@pytest.mark.parametrize(("first", "again"), [("fp16", "fp16"), ("int8", "fp16"), ("int8", "int8")])
def test_our_own_graphs_are_built_again(first: str, again: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", [LAYER], {"w": W})
    for i in range(50):
        x = np.random.default_rng(i).normal(size=(2, 4)).astype(np.float32)
        np.savez(tmp_path / f"{i}.npz", x=x)
    made = edgevision.build(
        path, tmp_path / "n.ev", precision=first, calibration=tmp_path, cache=None
    )
    (tmp_path / "own.onnx").write_bytes(made.bundle.read(made.bundle.manifest.stages[0].graph))
    edgevision.build(
        tmp_path / "own.onnx", tmp_path / "m.ev", precision=again, samples=tmp_path, cache=None
    )


def test_an_input_that_is_an_output_is_told(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", [1])],
        [value("y", [1]), value("x", [1])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="'x' is an input and an output at once"):
        Tensors(tmp_path / "net.onnx")


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(2, 4)).astype(np.float32)} for _ in range(count)]


def loop(count: int, body: str = "MatMul") -> list[onnx.NodeProto]:
    inside = helper.make_graph(
        [helper.make_node(body, ["c", "turn"], ["d"]), helper.make_node("Identity", ["k"], ["l"])],
        "body",
        [value("i", [], TensorProto.INT64), value("k", [], TensorProto.BOOL), value("c", [2, 4])],
        [value("l", [], TensorProto.BOOL), value("d", [2, 4])],
    )  # fmt: skip
    count_node = helper.make_node(
        "Constant", [], ["n"], value=numpy_helper.from_array(np.array(count), "n")
    )
    return [
        count_node,
        helper.make_node("Loop", ["n", "t", "start"], ["e"], "steps", body=inside),
        helper.make_node("Add", ["x", "e"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]


_SQUARE = np.eye(4, dtype=np.float32) * np.float32(0.9)
_STEPS = {"t": np.array(True), "start": np.ones((2, 4), np.float32), "turn": _SQUARE, "w": W}
TAKEN = {
    "nodes of one name": (
        [helper.make_node("Relu", ["x"], ["r"], "n:/ü"),
         helper.make_node("MatMul", ["r", "w"], ["y"], "n:/ü")], {"w": W},
    ),
    "names like ours": (
        [helper.make_node("MatMul", ["x", "w_q"], ["x_q"], "x_Q"),
         helper.make_node("Relu", ["x_q"], ["x_dq"], "x_DQ"),
         helper.make_node("MatMul", ["x_dq", "w_scale"], ["y"], "w_to_fp16")],
        {"w_q": W, "w_scale": np.eye(3, dtype=np.float32)},
    ),
    "a loop that starts from constants": (loop(3), _STEPS),
    "places that are added up": (
        [helper.make_node("ScatterND", ["zeros", "at", "x"], ["s"], reduction="add"),
         helper.make_node("MatMul", ["s", "w"], ["y"])],
        {"zeros": np.zeros((2, 4), np.float32), "at": np.array([[1], [1]]), "w": W},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")
@pytest.mark.parametrize("name", TAKEN)
def test_every_precision_is_made_of_it(name: str, tmp_path: Path) -> None:
    adapter = Tensors(saved(tmp_path / "net.onnx", *TAKEN[name]))
    stage = export_stage(adapter, precision="int8", samples=feeds(), calibration=feeds())
    assert all(report.passed for report in stage.parity)
    assert stage.int8


def test_a_branch_that_is_always_taken_is_folded_whatever_the_other_gives(tmp_path: Path) -> None:
    squeezed = helper.make_graph(
        [helper.make_node("Squeeze", ["x3", "axis"], ["t"])], "then", [], [value("t", ["a", "b"])]
    )
    whole = helper.make_graph(
        [helper.make_node("Identity", ["x3"], ["e"])], "else", [], [value("e", ["a", "b", "c"])]
    )
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["x3"]),
        helper.make_node("Shape", ["x3"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["extent"], axis=0),
        helper.make_node("Equal", ["extent", "one"], ["is_one"]),
        helper.make_node("If", ["is_one"], ["z"], then_branch=squeezed, else_branch=whole),
    ]
    stored = {"axis": np.array([1]), "one": np.array(1)}
    for batch, last in itertools.product(
        (2, "n"), ([helper.make_node("MatMul", ["z", "w"], ["y"])], [])
    ):
        path = saved(tmp_path / "net.onnx", [*nodes, *last], {**stored, "w": W}, batch=batch)
        model = onnx.load(path)
        if not last:
            model.graph.output[0].name = "z"
            model.graph.output[0].type.tensor_type.ClearField("shape")
            onnx.save(model, path)
        graph = Tensors(path).to_onnx()
        assert "If" not in {node.op_type for node in graph.graph.node}
        assert run(graph, feeds()[0])[model.graph.output[0].name].shape == (2, 3 if last else 4)


def test_an_output_without_a_shape_gets_the_one_that_follows(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", [LAYER], {"w": W})
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    (y,) = Tensors(path).to_onnx().graph.output
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [2, 3]


def test_an_input_larger_than_memory_is_told(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [value("x", [1 << 20, 1 << 30])], [value("y", [1 << 20, 1 << 30])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InsufficientMemoryError, match=r"no samples of \(x: float32\["):
        golden_samples(Tensors(tmp_path / "net.onnx"), None, None)


def test_an_input_of_no_axes_is_drawn(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])], "g",
        [value("x", [2, 4]), value("k", [])], [value("y", [2, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    adapter = Tensors(tmp_path / "net.onnx")
    for ranges in (None, {"k": (2.0, 3.0)}):
        samples, _ = golden_samples(adapter, None, None, ranges=ranges)
        assert np.shape(adapter.reference(samples[0])["y"]) == (2, 4)


@pytest.mark.parametrize(
    ("nodes", "stored", "message"),
    [
        ([LAYER], {"w": np.where(W[1, 1] == W, np.nan, W)}, r"'w' holds 1 of 12 .* NaN"),
        ([LAYER], {"w": np.where(W[1, 1] == W, -np.inf, W)}, r"'w' holds 1 of 12 .* infinite"),
        (loop(1 << 40), _STEPS, "'steps' runs 1099511627776 times"),
        ([], {"y": W[:2]}, "holds no node"),
        ([helper.make_node("Magic", ["x"], ["y"], domain="acme")], {}, "the file does not run"),
    ],
)
def test_what_no_build_could_mend_is_refused_where_it_is_read(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.onnx", nodes, stored)
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("acme", 1))
    onnx.save(model, path)
    with pytest.raises(ExportError, match=message):
        Tensors(path).reference(feeds()[0])
