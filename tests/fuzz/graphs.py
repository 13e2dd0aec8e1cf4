"""Small ONNX files as people have them, changed in their bytes or in their meaning."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.export.adapters.tensors import Tensors
from edgevision.export.samples import golden_samples

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
_SIZES = (0, 1, 2, 3, 7, -1, 65537, 2**31, 2**40)
_OPS = (
    "Add Sub Mul Div Relu Sigmoid MatMul Conv ConvTranspose Gemm Concat Reshape Transpose Softmax "
    "Gather Squeeze Unsqueeze Resize MaxPool ReduceMean LayerNormalization Where Slice Pad Tile "
    "Expand TopK LSTM Einsum GridSample NoSuchOperator"
).split()


def make(folder: Path) -> list[Path]:
    """Write sound files."""
    paths = []
    for name, model in _sound().items():
        onnx.checker.check_model(model, full_check=True)
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        paths.append(path)
    return paths


def read(path: Path) -> None:
    """Build the file in INT8, and hold what was built against ONNX Runtime on the file itself."""
    adapter = Tensors(path)
    samples, _ = golden_samples(adapter, None, None)
    folder = path.parent / "typical"
    folder.mkdir()
    for i, feeds in enumerate(samples):
        np.savez(folder / f"{i}.npz", **feeds)
    made = edgevision.build(
        path, path.parent / "net.ev", precision="int8", calibration=folder,
        targets="jetson-orin-jp6",
    )  # fmt: skip
    hold(path, made.bundle)


def hold(path: Path, bundle: Bundle) -> None:
    """Hold a bundle's golden answers against ONNX Runtime on the file itself."""
    inputs, outputs = bundle.golden("main")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"],
        disabled_optimizers=["MatmulTransposeFusion"],
    )  # fmt: skip
    for i in range(len(next(iter(inputs.values())))):
        want = session.run(list(outputs), {name: array[i] for name, array in inputs.items()})
        for (name, found), right in zip(outputs.items(), want, strict=True):
            np.testing.assert_allclose(found[i], right, rtol=1e-3, atol=1e-4, err_msg=name)


def change(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return a file with one or a few things in it that are otherwise."""
    from tests.fuzz.__main__ import change as change_bytes

    if rng.random() < 0.1:
        return change_bytes(content, other, rng)
    model = ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(model, rng)
    return model.SerializeToString()


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _some_node(model: ModelProto, rng: random.Random) -> onnx.NodeProto:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    return rng.choice(nodes) if nodes else model.graph.node.add()


def _attribute(model: ModelProto, rng: random.Random) -> None:
    node = _some_node(model, rng)
    if not node.attribute or rng.random() < 0.2:
        node.attribute.append(helper.make_attribute(rng.choice(("axis", "group")), 3))
        return
    place = rng.randrange(len(node.attribute))
    held = node.attribute[place]
    match held.type:
        case AttributeProto.INT:
            held.i = rng.choice((-1, 0, 1, 2, 99, -(2**40)))
        case AttributeProto.INTS if held.ints:
            held.ints[rng.randrange(len(held.ints))] = rng.choice((-1, 0, 1, 2, 99, 2**33))
        case AttributeProto.STRING:
            held.s = rng.choice((b"", b"linear", b"nearest", b"\xff"))
        case _:
            del node.attribute[place]


def _input(model: ModelProto, rng: random.Random) -> None:
    node = _some_node(model, rng)
    names = ["", "nowhere", *(name for n in model.graph.node for name in (*n.input, *n.output))]
    ends = rng.choice((node.input, node.output))
    if len(ends) and rng.random() < 0.7:
        ends[rng.randrange(len(ends))] = rng.choice(names)
    else:
        ends.append(rng.choice(names))


def _operator(model: ModelProto, rng: random.Random) -> None:
    _some_node(model, rng).op_type = rng.choice(_OPS)


def _nodes(model: ModelProto, rng: random.Random) -> None:
    nodes = model.graph.node
    if not nodes:
        return
    place = rng.randrange(len(nodes))
    match rng.randrange(3):
        case 0:
            del nodes[place]
        case 1:
            nodes.append(nodes[place])
        case _:
            order = list(nodes)
            rng.shuffle(order)
            del nodes[:]
            nodes.extend(order)


def _shape(model: ModelProto, rng: random.Random) -> None:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    kind = rng.choice(values).type.tensor_type
    if rng.random() < 0.2:
        kind.elem_type = rng.randrange(0, 24)
    elif kind.shape.dim:
        dim = rng.choice(kind.shape.dim)
        if rng.random() < 0.5:
            dim.dim_param = rng.choice(("", "n", "?"))
        else:
            dim.dim_value = rng.choice(_SIZES)
    else:
        kind.shape.dim.add().dim_value = rng.choice(_SIZES)


def _weights(model: ModelProto, rng: random.Random) -> None:
    held = [tensor for graph in _graphs(model.graph) for tensor in graph.initializer]
    if not held:
        return
    tensor = rng.choice(held)
    match rng.randrange(6):
        case 0:
            tensor.raw_data = tensor.raw_data[: rng.randrange(1 + len(tensor.raw_data))]
        case 1 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_SIZES)
        case 2:
            tensor.data_type = rng.randrange(0, 24)
        case 3:
            tensor.name = rng.choice(("", "nowhere", held[0].name))
        case 4 if tensor.raw_data:
            end = rng.choice((np.inf, np.nan, 1e30, 0, -1))
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, end, np.float32).tobytes()
        case _:
            tensor.raw_data = rng.randbytes(len(tensor.raw_data))


def _version(model: ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.7:
        model.opset_import[0].version = rng.choice((0, 1, 6, 9, 13, 18, 21, 24, 99))
    else:
        model.ir_version = rng.choice((0, 3, 8, 12, 99))


# What leaves most files as ONNX has them is done most.
_CHANGES = (
    *(_attribute, _weights, _shape) * 3,
    *(_input, _operator, _nodes, _version),
)


def _value(name: str, shape: list[int | str], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    opset: int = 17,
    **stored: np.ndarray,
) -> ModelProto:
    held = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _sound() -> dict[str, ModelProto]:
    rng = np.random.default_rng(0)

    def random_(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.5)

    node = helper.make_node
    x, row = _value("x", [1, 3, 8, 8]), _value("x", [2, 4])
    body = helper.make_graph(
        [node("MatMul", ["c", "w"], ["d"]), node("Identity", ["k"], ["l"])], "body",
        [_value("i", [], INT64), _value("k", [], BOOL), _value("c", [2, 4])],
        [_value("l", [], BOOL), _value("d", [2, 4])],
    )  # fmt: skip
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op, ["x"], [name])], name, [], [_value(name, [2, 4])]
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    scale, zero = np.array(0.03, np.float32), np.array(0, np.int8)
    return {
        "net": _model(
            [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
             node("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"]),
             node("Relu", ["n"], ["r"]),
             node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
             node("ConvTranspose", ["p", "u"], ["t"], strides=[2, 2]),
             node("Concat", ["t", "r"], ["j"], axis=1),
             node("GlobalAveragePool", ["j"], ["g"]), node("Flatten", ["g"], ["f"]),
             node("Gemm", ["f", "h", "hb"], ["y"], transB=1)],
            [x], [_value("y", [1, 2])], w=random_(4, 3, 3, 3), b=random_(4),
            s=np.ones(4, np.float32), u=random_(4, 2, 2, 2), h=random_(2, 6), hb=random_(2),
        ),
        "old": _model(
            [node("Upsample", ["x", "s"], ["u"], mode="nearest"),
             node("Slice", ["u"], ["c"], starts=[1, 1], ends=[9, 9], axes=[2, 3]),
             node("Conv", ["c", "w"], ["y"])],
            [x], [_value("y", [1, 4, 6, 6])], opset=9,
            s=np.array([1, 1, 2, 2], np.float32), w=random_(4, 3, 3, 3),
        ),
        "attention": _model(
            [node("MatMul", ["x", "q"], ["a"]), node("MatMul", ["x", "k"], ["b"]),
             node("Transpose", ["b"], ["t"], perm=[1, 0]), node("MatMul", ["a", "t"], ["l"]),
             node("Softmax", ["l"], ["p"], axis=-1), node("MatMul", ["p", "x"], ["v"]),
             node("LayerNormalization", ["v", "s"], ["y"])],
            [_value("x", ["n", 4])], [_value("y", ["n", 4])], q=random_(4, 4), k=random_(4, 4),
            s=np.ones(4, np.float32),
        ),
        "loop": _model(
            [node("Loop", ["n", "t", "x"], ["y"], body=body)], [row], [_value("y", [2, 4])],
            n=np.array(3), t=np.array(True), w=random_(4, 4),
        ),
        "branches": _model(
            [node("If", ["c"], ["z"], **branches), node("MatMul", ["z", "w"], ["y"])],
            [row], [_value("y", [2, 3])], c=np.array(True), w=random_(4, 3),
        ),
        "reader": _model(
            [node("LSTM", ["x", "w", "r"], ["s"], hidden_size=3),
             node("Squeeze", ["s", "a"], ["q"]), node("MatMul", ["q", "h"], ["y"])],
            [_value("x", [5, 2, 4])], [_value("y", [5, 2, 6])],
            w=random_(1, 12, 4), r=random_(1, 12, 3), a=np.array([1]), h=random_(3, 6),
        ),
        "quantised": _model(
            [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["w", "s", "z"], ["v"]), node("MatMul", ["d", "v"], ["y"])],
            [row], [_value("y", [2, 3])], s=scale, z=zero,
            w=rng.integers(-90, 90, (4, 3)).astype(np.int8),
        ),
        "words": _model(
            [node("Gather", ["t", "ids"], ["e"]), node("Reshape", ["e", "s"], ["f"]),
             node("MatMul", ["f", "w"], ["l"]), node("TopK", ["l", "k"], ["y", "at"])],
            [_value("ids", [1, 2], INT64)], [_value("y", [1, 2]), _value("at", [1, 2], INT64)],
            t=random_(9, 4), s=np.array([1, -1]), w=random_(8, 5), k=np.array([2]),
        ),
    }  # fmt: skip
